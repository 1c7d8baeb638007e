/* Responsible for the floor of an atomic write and of an edit: the same system calls in the same
 * order, and nothing else. What an edit searches for is at an offset that is given.
 *
 * usage: rewrite write PATH BYTES ROUNDS
 *        rewrite edit PATH OFFSET OLD NEW ROUNDS     OLD and NEW take turns; both of one length
 *                                                    prints seconds of all rounds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define TEMPORARY ".floor-0.tmp"
#define NEXT ".floor-1.tmp"

static char attributes[256];

static void need(int outcome, const char *what)
{
    if (outcome < 0) {
        perror(what);
        exit(1);
    }
}

static void look(int directory, const char *name)
{
    struct stat status;
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_PATH);

    need(file, "look");
    need(fstat(file, &status), "fstat");
    close(file);
}

static void replace(const char *parent, const char *name, const char *content, size_t size)
{
    struct stat status;
    char link[256];
    int directory = open(parent, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    int file, old;

    need(directory, "open the directory");
    if (readlinkat(directory, name, link, sizeof link) >= 0)
        exit(2);
    look(directory, name);
    file = openat(directory, TEMPORARY, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    need(file, "create");
    need(flock(file, LOCK_EX | LOCK_NB), "flock");
    need(fstatat(directory, TEMPORARY, &status, AT_SYMLINK_NOFOLLOW), "fstatat");
    need(fstat(file, &status), "fstat");
    if (fstatat(directory, NEXT, &status, AT_SYMLINK_NOFOLLOW) == 0)
        exit(3);
    old = openat(directory, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    need(old, "open the old file");
    flistxattr(old, attributes, sizeof attributes);
    close(old);
    while (size > 0) {
        ssize_t written = write(file, content, size);

        need(written < 0 ? -1 : 0, "write");
        content += written;
        size -= written;
    }
    need(fstat(file, &status), "fstat");
    need(fchmod(file, 0644), "fchmod");
    need(fsync(file), "fsync");
    look(directory, name);
    need(renameat(directory, TEMPORARY, directory, name), "renameat");
    need(fsync(directory), "fsync the directory");
    need(fstat(file, &status), "fstat");
    close(file);
    close(directory);
}

static void edit(const char *path, const char *parent, const char *name, size_t offset,
                 const char *new)
{
    struct stat status;
    size_t length = strlen(new), size = 0;
    ssize_t got;
    char *content, *edited;
    int file;

    need(stat(path, &status), "stat");
    file = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    need(file, "open");
    need(fstat(file, &status), "fstat");
    need(flock(file, LOCK_EX | LOCK_NB), "flock");
    need(stat(path, &status), "stat");
    need(fstat(file, &status), "fstat");
    content = malloc(status.st_size + 1);
    edited = malloc(status.st_size);
    if (!content || !edited)
        exit(4);
    while (size < (size_t)status.st_size) {
        got = read(file, content + size, status.st_size + 1 - size);
        need(got <= 0 ? -1 : 0, "read");
        size += got;
    }
    memcpy(edited, content, offset);
    memcpy(edited + offset, new, length);
    memcpy(edited + offset + length, content + offset + length, size - offset - length);
    replace(parent, name, edited, size);
    close(file);
    free(content);
    free(edited);
}

int main(int argc, char **argv)
{
    struct timespec began, ended;
    char *parent, *name, *content = NULL;
    size_t size = 0;
    int round, rounds;

    if (argc < 5)
        return 64;
    parent = dirname(strdup(argv[2]));
    name = basename(strdup(argv[2]));
    rounds = atoi(argv[argc - 1]);
    if (!strcmp(argv[1], "write")) {
        size = strtoul(argv[3], NULL, 10);
        content = malloc(size + 1);
        memset(content, 'x', size);
    }
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (round = 0; round < rounds; round++) {
        if (content)
            replace(parent, name, content, size);
        else
            edit(argv[2], parent, name, strtoul(argv[3], NULL, 10), argv[round % 2 ? 4 : 5]);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.9f\n", (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
