//! No packet between host, guardian and leash can be misread: what decodes says what it says when
//! it is encoded again, and whatever was encoded decodes to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vespera_guardian::{
    Environment, Hello, INHERIT, Limits, Order, REPORT, Report, SPAWN_HEADER, Spawn,
};

fuzz_target!(|bytes: &[u8]| {
    if let Some(report) = Report::decode(bytes) {
        let again = report.encode();
        assert_eq!(again.len(), REPORT);
        assert_eq!(Report::decode(&again), Some(report));
    }
    if let Some(order) = Order::decode(bytes) {
        assert_eq!(&order.encode()[..], bytes);
    }
    Hello::decode(bytes);
    let (header, strings) = bytes.split_at(bytes.len().min(SPAWN_HEADER));
    if let Some(spawn) = Spawn::decode(header, strings) {
        same(&spawn);
    }
    made(bytes);
});

/// A request that was read is the request that it was read from.
fn same(spawn: &Spawn<'_>) {
    assert_eq!(spawn.program.first(), Some(&b'/'));
    assert_eq!(spawn.directory.first(), Some(&b'/'));
    let all: Vec<&[u8]> = spawn.strings.split(|byte| *byte == 0).collect();
    let (argc, envc) = (spawn.argc as usize, spawn.envc as usize);
    assert_eq!(all.len(), argc + envc + 1);
    // What we encode always has a mark, and an equals sign in each entry behind it.
    let [mark, entries @ ..] = &all[argc..argc + envc] else {
        return;
    };
    if !entries.iter().all(|entry| entry.contains(&b'=')) {
        return;
    }
    let (header, strings) = spawn.encode(&all[..argc], &environment_of(entries), mark);
    let again = Spawn::decode(&header, &strings).expect("our own packet");
    assert_eq!(again.strings, spawn.strings);
    assert_eq!(
        (again.program, again.directory),
        (spawn.program, spawn.directory)
    );
    assert_eq!((again.cgroup, again.limits), (spawn.cgroup, spawn.limits));
}

fn environment_of(entries: &[&[u8]]) -> Environment {
    let mut environment = Environment::default();
    for entry in entries {
        let mut parts = entry.splitn(2, |byte| *byte == b'=');
        environment.push(
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
    }
    environment
}

/// A request made from the bytes arrives, unless a text of it holds what no text may.
fn made(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'|').collect();
    let [program, directory, cgroup, argv @ ..] = &parts[..] else {
        return;
    };
    let spawn = Spawn {
        grace_ms: 250,
        umask: 0o22,
        limits: Limits {
            nice: INHERIT,
            ..Limits::default()
        },
        program,
        directory,
        cgroup,
        argc: 0,
        envc: 0,
        strings: b"",
    };
    let (argv, environment) = argv.split_at(argv.len().div_ceil(2));
    let (header, strings) = spawn.encode(argv, &environment_of(environment), b"MARK=1");
    let rooted = |path: &[u8]| path.first() == Some(&b'/');
    let legal = !bytes.contains(&0)
        && !argv.is_empty()
        && rooted(program)
        && rooted(directory)
        && (cgroup.is_empty() || rooted(cgroup));
    let read = Spawn::decode(&header, &strings);
    if legal {
        let read = read.expect("a legal request arrives");
        assert_eq!(
            (read.program, read.directory, read.cgroup),
            (*program, *directory, *cgroup)
        );
        assert_eq!(
            (read.argc as usize, read.envc as usize),
            (argv.len(), environment.len() + 1)
        );
    } else if let Some(read) = read {
        // A NUL in a text shifts the others; whatever comes out still has its whole shape.
        same(&read);
    }
}
