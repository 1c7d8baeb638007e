/* Responsible for a CLI that costs nothing: it speaks the stream-json of the Claude CLI and answers
 * at once, so that a benchmark measures the host and the kernel instead of a model.
 *
 * control_request -> control_response; user -> system/init, assistant messages, result; EOF -> exit 0.
 * Ten messages of about 450 bytes, or as many of as many bytes as INSTANT_MESSAGES and INSTANT_BYTES say;
 * before them INSTANT_HOOKS calls of the first hook that the host has, each of which is waited for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *line;
static size_t room;

/* Copies the string value of `key` into `out`; JSON encoders differ in the space after the colon. */
static int value_of(const char *text, const char *key, char *out, size_t size)
{
    const char *at = strstr(text, key);
    if (!at)
        return 0;
    at = strchr(at + strlen(key), ':');
    at = at ? strchr(at, '"') : NULL;
    const char *end = at ? strchr(at + 1, '"') : NULL;
    if (!end || (size_t)(end - at) > size)
        return 0;
    memcpy(out, at + 1, (size_t)(end - at - 1));
    out[end - at - 1] = '\0';
    return 1;
}

static long number(const char *name, long usual)
{
    const char *text = getenv(name);
    return text ? atol(text) : usual;
}

/* One message, made once: what is measured is not its making. */
static char *message_of(const char *session, long bytes)
{
    static const char *head =
        "{\"type\":\"assistant\",\"session_id\":\"%s\",\"parent_tool_use_id\":null,\"message\":{"
        "\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"instant\",\"content\":["
        "{\"type\":\"text\",\"text\":\"";
    static const char *tail =
        "\"}],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"output_tokens\":10}}}\n";
    long used = snprintf(NULL, 0, head, session);
    long fill = bytes - used - (long)strlen(tail);
    char *message = malloc((size_t)used + (fill > 0 ? (size_t)fill : 0) + strlen(tail) + 1);
    if (!message)
        exit(1);
    sprintf(message, head, session);
    for (long i = 0; i < fill; i++)
        message[used++] = i % 8 == 7 ? ' ' : (char)('a' + i % 26);
    strcpy(message + used, tail);
    return message;
}

/* Asks the host's hook about a tool and waits for its answer. */
static void call_hook(const char *hook, long call)
{
    printf("{\"type\":\"control_request\",\"request_id\":\"hook-%ld\",\"request\":{"
           "\"subtype\":\"hook_callback\",\"callback_id\":\"%s\",\"tool_use_id\":\"toolu_1\",\"input\":{"
           "\"hook_event_name\":\"PreToolUse\",\"tool_name\":\"Bash\",\"tool_input\":{}}}}\n", call, hook);
    fflush(stdout);
    if (getline(&line, &room, stdin) <= 0 || !strstr(line, "\"control_response\""))
        exit(1);
}

static void answer_turn(const char *session, const char *hook)
{
    static char *message;
    static long messages;
    if (!message) {
        message = message_of(session, number("INSTANT_BYTES", 450));
        messages = number("INSTANT_MESSAGES", 10);
    }
    printf("{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"%s\",\"tools\":[],"
           "\"model\":\"instant\",\"permissionMode\":\"default\",\"cwd\":\"/\"}\n", session);
    for (long i = 0; *hook && i < number("INSTANT_HOOKS", 0); i++)
        call_hook(hook, i);
    for (long i = 0; i < messages; i++)
        fputs(message, stdout);
    printf("{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"duration_ms\":1,"
           "\"duration_api_ms\":1,\"num_turns\":1,\"result\":\"done\",\"session_id\":\"%s\","
           "\"total_cost_usd\":0.0,\"usage\":{\"input_tokens\":10,\"output_tokens\":100}}\n", session);
}

int main(int argc, char **argv)
{
    char session[128] = "00000000-0000-4000-8000-000000000000";
    char request[128];
    char hook[128] = "";
    static char buffer[1 << 16];

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            puts("2.1.330 (Claude Code)");
            return 0;
        }
        if (strncmp(argv[i], "--session-id=", 13) == 0)
            snprintf(session, sizeof session, "%s", argv[i] + 13);
    }
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    while (getline(&line, &room, stdin) > 0) {
        if (strstr(line, "\"control_request\"")) {
            value_of(line, "\"hookCallbackIds\"", hook, sizeof hook);
            if (value_of(line, "\"request_id\"", request, sizeof request))
                printf("{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\","
                       "\"request_id\":\"%s\",\"response\":{\"commands\":[]}}}\n", request);
        } else if (strstr(line, "\"user\"")) {
            answer_turn(session, hook);
        }
        fflush(stdout);
    }
    free(line);
    return 0;
}
