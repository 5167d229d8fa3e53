#define _POSIX_C_SOURCE 200809L
#include "table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash(const char *word)
{
	uint64_t value = 14695981039346656037u;

	for (; *word; word++)
		value = (value ^ (unsigned char)*word) * 1099511628211u;
	return value;
}

static struct entry *slot(struct table *table, const char *word)
{
	size_t at = hash(word) & (table->size - 1);

	while (table->slots[at].word && strcmp(table->slots[at].word, word) != 0)
		at = (at + 1) & (table->size - 1);
	return &table->slots[at];
}

static int grow(struct table *table)
{
	struct table larger = {.size = table->size ? 2 * table->size : 64, .used = table->used};

	larger.slots = calloc(larger.size, sizeof *larger.slots);
	if (!larger.slots)
		return -1;
	for (size_t i = 0; i < table->size; i++)
		if (table->slots[i].word)
			*slot(&larger, table->slots[i].word) = table->slots[i];
	free(table->slots);
	*table = larger;
	return 0;
}

int table_add(struct table *table, const char *word)
{
	struct entry *entry;

	if (2 * table->used >= table->size && grow(table) < 0)
		return -1;
	entry = slot(table, word);
	if (!entry->word) {
		entry->word = strdup(word);
		if (!entry->word)
			return -1;
		table->used++;
	}
	entry->count++;
	return 0;
}

static int order(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;

	if (a->count != b->count)
		return a->count < b->count ? 1 : -1;
	return strcmp(a->word, b->word);
}

void table_sort(struct table *table)
{
	size_t filled = 0;

	for (size_t i = 0; i < table->size; i++)
		if (table->slots[i].word)
			table->slots[filled++] = table->slots[i];
	if (filled)
		qsort(table->slots, filled, sizeof *table->slots, order);
}

void table_free(struct table *table)
{
	for (size_t i = 0; i < table->used; i++)
		free(table->slots[i].word);
	free(table->slots);
}
