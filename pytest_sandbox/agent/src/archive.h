/* Trees out as tar, trees in from tar, and back to a snapshot by differences (docs/protocol.md, "Archives"). */
#ifndef ARCHIVE_H
#define ARCHIVE_H

#include "wire.h"

_Noreturn void persist(struct reader *body);
_Noreturn void changes(struct reader *body);
_Noreturn void hydrate(struct reader *body);
_Noreturn void restore(struct reader *body);

#endif
