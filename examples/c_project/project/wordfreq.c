/* Print how often each word of the standard input came, the most frequent first. */
#include "table.h"

#include <ctype.h>
#include <stdio.h>

#define LONGEST 255 /* bytes of a word; a longer one is split */

int main(void)
{
	struct table table = {0};
	char word[LONGEST + 1];
	size_t length = 0;
	int c;

	do {
		c = getchar();
		if (c != EOF && isalnum(c))
			word[length++] = (char)tolower(c);
		if (length == LONGEST || (length > 0 && (c == EOF || !isalnum(c)))) {
			word[length] = '\0';
			if (table_add(&table, word) < 0) {
				perror("wordfreq");
				return 1;
			}
			length = 0;
		}
	} while (c != EOF);

	table_sort(&table);
	for (size_t i = 0; i < table.used; i++)
		printf("%lu %s\n", table.slots[i].count, table.slots[i].word);
	table_free(&table);
	return 0;
}
