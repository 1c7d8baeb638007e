/* Responsible for the floor: the same sessions with nothing but system calls, WIDTH at a time.
 *
 * usage: floor PROGRAM SESSIONS WIDTH TURNS      prints seconds, then CPU seconds of this process
 *
 * Each session is posix_spawn, initialize, TURNS prompts each read up to its result, EOF, waitpid.
 * With TURNS -1 the program is one that says nothing: posix_spawn, read up to EOF, waitpid.
 * One poll loop, no thread, no parsing beyond looking for two words: nobody can do less.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INITIALIZE "{\"type\":\"control_request\",\"request_id\":\"1\",\"request\":{\"subtype\":\"initialize\"}}\n"
#define PROMPT "{\"type\":\"user\",\"session_id\":\"\",\"message\":{\"role\":\"user\",\"content\":\"hi\"},\"parent_tool_use_id\":null}\n"
#define WIDEST 256

struct session { pid_t pid; int in, out, turns_left, used; char tail[1 << 16]; };

static struct session sessions[WIDEST];
static struct pollfd watched[WIDEST];
extern char **environ;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        die("write");
}

static void start(struct session *s, const char *program, int turns)
{
    int in[2], out[2];
    posix_spawn_file_actions_t actions;
    char *arguments[] = {(char *)program, NULL};

    if ((turns >= 0 && pipe2(in, O_CLOEXEC)) || pipe2(out, O_CLOEXEC))
        die("pipe2");
    posix_spawn_file_actions_init(&actions);
    if (turns >= 0)
        posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    if (posix_spawn(&s->pid, program, &actions, NULL, arguments, environ))
        die("posix_spawn");
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    s->in = -1;
    s->out = out[0];
    s->turns_left = turns;
    s->used = 0;
    if (turns < 0)
        return;
    close(in[0]);
    s->in = in[1];
    say(s->in, INITIALIZE);
}

/* What the line asks for: the next prompt, or the end. */
static void heard(struct session *s, const char *line)
{
    if (!strstr(line, "\"type\":\"control_response\"") && !strstr(line, "\"type\":\"result\""))
        return;
    if (s->turns_left-- > 0) {
        say(s->in, PROMPT);
    } else {
        close(s->in);
        s->in = -1;
    }
}

/* Reads what is there; returns 1 when the session is over and reaped. */
static int advance(struct session *s)
{
    ssize_t got = read(s->out, s->tail + s->used, sizeof s->tail - 1 - (size_t)s->used);
    if (got < 0)
        die("read");
    if (got == 0) {
        int status;
        close(s->out);
        if (s->in >= 0 || waitpid(s->pid, &status, 0) < 0 || status) {
            fprintf(stderr, "floor: the program ended too early or failed\n");
            exit(1);
        }
        return 1;
    }
    s->used += (int)got;
    s->tail[s->used] = '\0';
    char *begin = s->tail, *end;
    while ((end = memchr(begin, '\n', (size_t)(s->used - (begin - s->tail))))) {
        *end = '\0';
        heard(s, begin);
        begin = end + 1;
    }
    s->used -= (int)(begin - s->tail);
    memmove(s->tail, begin, (size_t)s->used);
    return 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: floor PROGRAM SESSIONS WIDTH TURNS\n");
        return 2;
    }
    int left = atoi(argv[2]), width = atoi(argv[3]), turns = atoi(argv[4]), live = 0;
    if (width < 1 || width > WIDEST)
        width = WIDEST;
    signal(SIGPIPE, SIG_IGN);
    double began = now();
    for (; live < width && left > 0; live++, left--) {
        start(&sessions[live], argv[1], turns);
        watched[live] = (struct pollfd){.fd = sessions[live].out, .events = POLLIN};
    }
    while (live > 0) {
        if (poll(watched, (nfds_t)width, -1) < 0)
            die("poll");
        for (int i = 0; i < width; i++) {
            if (watched[i].fd < 0 || !watched[i].revents || !advance(&sessions[i]))
                continue;
            if (left > 0) {
                left--;
                start(&sessions[i], argv[1], turns);
                watched[i].fd = sessions[i].out;
            } else {
                live--;
                watched[i].fd = -1;
            }
        }
    }
    double seconds = now() - began;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.6f %.6f\n", seconds,
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
               + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    return 0;
}
