// Package spelling tells how alike two words are: for "did you mean".
//
// What is like enough to be suggested depends on what the words are, so callers decide
// that; here is only the measure, and there is only one in the tree.
//
//	d := spelling.Edits("cdir", "cidr") // 2
package spelling

import "strings"

// Edits is the number of bytes to insert, delete or replace to make b of a (Levenshtein's
// distance); the case of letters does not count. It takes len(a)*len(b) steps: bound what comes from
// outside.
func Edits(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner, row[j+1] = row[j+1], min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
