/* Words and how often they came. */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

struct entry {
	char *word;
	unsigned long count;
};

struct table {
	struct entry *slots; /* open addressing; word is NULL where a slot is free */
	size_t size;         /* a power of two */
	size_t used;
};

/* Count a word once more. Return 0, or -1 without memory. */
int table_add(struct table *table, const char *word);

/* Move all entries to the front, the most frequent first, equals by name. The table can only be freed afterwards. */
void table_sort(struct table *table);

void table_free(struct table *table);

#endif
