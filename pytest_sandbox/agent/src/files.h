/* File operations; each runs in a forked worker, with the rights of the user it is made for. */
#ifndef FILES_H
#define FILES_H

#include "path.h"
#include "wire.h"

/* A worker's descriptors. */
enum { WORKER_INPUT = 0, WORKER_OUTPUT = 1, WORKER_LINK = 3, WORKER_INDEX = 4, WORKER_EVENTS = 5 };

/* Carry out the operation of an OPEN body and end. A malformed body is FAILURE EBADMSG. */
_Noreturn void work(enum kind kind, struct reader *body);

/* For the other nouns that run in a worker: end with a result, or with a failure. */
_Noreturn void succeed(const struct writer *result);
_Noreturn void fail(int error, const char *operation, const char *subject);
/* Take the root that the operation is confined to, if it is, from a body. */
void confine(struct reader *body);
/* locate() beneath that root, or fail. */
struct place find(const char *path, int how, const char *operation);
/* Write all of it to the output pipe; a reader that is gone means the operation was cancelled. */
void output(const void *bytes, size_t length);
/* Read up to `room` bytes of input: 0 at its end. */
size_t input(void *bytes, size_t room);

#endif
