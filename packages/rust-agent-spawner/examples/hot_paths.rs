//! Does one hot path of the engine so many times, for `nox -s instructions`, which counts what it
//! takes: `hot_paths framer|envelope COUNT`.
#![allow(clippy::print_stdout, reason = "a program's answer")]

#[cfg(target_os = "linux")]
fn main() {
    use bytes::Bytes;
    use std::hint::black_box;
    use vespera_agent_spawner::agent::stream::{Framer, Line};
    use vespera_agent_spawner::agent::{claude, details};

    const LINE: &str = concat!(
        r#"{"type":"assistant","session_id":"00000000-0000-4000-8000-000000000000","#,
        r#""parent_tool_use_id":null,"uuid":"11111111-1111-4111-8111-111111111111","#,
        r#""message":{"id":"msg_1","type":"message","role":"assistant","model":"m","#,
        r#""content":[{"type":"text","text":"Some words that an agent says, and some more."}],"#,
        r#""stop_reason":null,"usage":{"input_tokens":10,"output_tokens":10}}}"#,
        "\n"
    );
    let mut words = std::env::args().skip(1);
    let (path, count) = (words.next().unwrap_or_default(), words.next());
    let count: usize = count.and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut seen = 0;
    match path.as_str() {
        "framer" => {
            // As from a pipe: 64 KiB at a time, lines cut anywhere.
            let stream = Bytes::from(LINE.repeat(64 * 1024 / LINE.len() * 2));
            let mut framer = Framer::with_cap(1 << 20);
            for _ in 0..count {
                for start in (0..stream.len()).step_by(64 * 1024) {
                    let end = stream.len().min(start + 64 * 1024);
                    framer.push(black_box(stream.slice(start..end)), |line| {
                        seen += match line {
                            Line::Whole(line) => black_box(line).len(),
                            Line::Oversize { length, .. } => length,
                        };
                    });
                }
            }
        }
        "envelope" => {
            let line = LINE.trim_end().as_bytes();
            for _ in 0..count {
                if let Some(frame) = claude::envelope(black_box(line)) {
                    seen += details::text(line, &frame.spans).map_or(0, |text| text.len());
                }
            }
        }
        other => panic!("no such path: '{other}'; framer or envelope"),
    }
    println!("{seen}");
}

#[cfg(not(target_os = "linux"))]
fn main() {}
