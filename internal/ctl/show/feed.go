package show

import (
	"fmt"
	"io"

	v3 "github.com/weft-net/weft/api/v3"
)

// Event is what happened to an object that is watched.
type Event string

// The events, in kubectl's words.
const (
	Added    Event = "ADDED"
	Modified Event = "MODIFIED"
	Deleted  Event = "DELETED"
)

// Feed prints objects one after another, as a watch finds them: rows of a table that
// begins with a column EVENT, names, or documents. It is not safe for concurrent use.
type Feed struct {
	format Format
	head   List
	table  *table
	event  Event
}

// Feed begins a feed of objects of head's kind. The error is that of [Format.Check].
func (f Format) Feed(head List) (*Feed, error) {
	feed := &Feed{format: f, head: head}
	if !f.IsTable() {
		return feed, nil
	}
	var err error
	if feed.table, err = f.newTable(head); err != nil {
		return nil, err
	}
	event := column{heading: "EVENT", of: func(v3.Object) cell { return one(string(feed.event)) }}
	feed.table.columns = append([]column{event}, feed.table.columns...)
	return feed, nil
}

// Print prints objects to which the same happened. Of one that is gone there is no
// document: it is passed over where documents are printed.
func (d *Feed) Print(w io.Writer, event Event, objects ...v3.Object) error {
	d.event = event
	switch {
	case len(objects) == 0:
		return nil
	case d.table != nil:
		d.table.add(objects)
		return d.table.print(w)
	case d.format.IsName() && event == Deleted:
		for _, o := range objects {
			if _, err := fmt.Fprintln(w, Name(o), "deleted"); err != nil {
				return err
			}
		}
		return nil
	case d.format.IsDocument() && event == Deleted:
		return nil
	}
	for _, o := range objects {
		l := d.head
		l.Single, l.Objects = true, []v3.Object{o}
		if d.format.form == formYAML {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return err
			}
		}
		if err := d.format.Print(w, l); err != nil {
			return err
		}
	}
	return nil
}
