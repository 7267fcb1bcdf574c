package nft

import "bytes"

// common pairs the rules of a chain that stay: for each wanted rule the index of the
// actual one that it is, or -1. The pairs are in the same order on both sides.
//
// What both begin and end with is paired first. Of the rest, each wanted rule is
// matched with the next equal actual one, and the longest rising sequence of these
// stays, as in a patience diff: it takes n log n, and what moved is written again.
func common(actual []rule, wanted []body) []int {
	keep := make([]int, len(wanted))
	for i := range keep {
		keep[i] = -1
	}
	lo := 0
	for lo < len(actual) && lo < len(wanted) && bytes.Equal(actual[lo].body, wanted[lo]) {
		keep[lo] = lo
		lo++
	}
	ah, wh := len(actual), len(wanted)
	for ah > lo && wh > lo && bytes.Equal(actual[ah-1].body, wanted[wh-1]) {
		ah--
		wh--
		keep[wh] = ah
	}
	if lo == ah || lo == wh {
		return keep
	}
	places := make(map[string][]int, ah-lo)
	for i := lo; i < ah; i++ {
		k := string(actual[i].body)
		places[k] = append(places[k], i)
	}
	var index, match []int // of wanted rules that have a match, and the matches
	for i := lo; i < wh; i++ {
		if p := places[string(wanted[i])]; len(p) > 0 {
			places[string(wanted[i])] = p[1:]
			index, match = append(index, i), append(match, p[0])
		}
	}
	for _, i := range rising(match) {
		keep[index[i]] = match[i]
	}
	return keep
}

// rising gives the indices of a longest rising sequence in v, whose values differ.
func rising(v []int) []int {
	var ends []int // of the best sequence of each length: index of its last
	before := make([]int, len(v))
	for i, x := range v {
		lo, hi := 0, len(ends)
		for lo < hi {
			if mid := (lo + hi) / 2; v[ends[mid]] < x {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		before[i] = -1
		if lo > 0 {
			before[i] = ends[lo-1]
		}
		if lo == len(ends) {
			ends = append(ends, i)
		} else {
			ends[lo] = i
		}
	}
	out := make([]int, len(ends))
	if len(ends) == 0 {
		return out
	}
	for i, at := len(ends)-1, ends[len(ends)-1]; i >= 0; i, at = i-1, before[at] {
		out[i] = at
	}
	return out
}
