/* Responsible for programs that somebody else runs: starts so many at once, reads all that they say
 * and throws it away.
 *
 * usage: drain COUNT PROGRAM ARGUMENT...
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
    static char buffer[65536];
    int count = argc > 2 ? atoi(argv[1]) : 0, left = 0, poller = epoll_create1(EPOLL_CLOEXEC);

    for (; left < count; left++) {
        int ends[2];
        pid_t pid;
        posix_spawn_file_actions_t actions;
        struct epoll_event watched = {.events = EPOLLIN};

        if (pipe2(ends, O_CLOEXEC))
            return 1;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        if (posix_spawn(&pid, argv[2], &actions, NULL, argv + 2, environ))
            return 1;
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        watched.data.fd = ends[0];
        epoll_ctl(poller, EPOLL_CTL_ADD, ends[0], &watched);
    }
    while (left > 0) {
        struct epoll_event ready[64];
        int found = epoll_wait(poller, ready, 64, -1);

        for (int i = 0; i < found; i++)
            if (read(ready[i].data.fd, buffer, sizeof buffer) <= 0) {
                close(ready[i].data.fd);
                left--;
            }
    }
    while (wait(NULL) > 0)
        ;
    return 0;
}
