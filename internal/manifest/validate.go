package manifest

import (
	"encoding/json"

	v3 "github.com/weft-net/weft/api/v3"
)

// Validate checks documents by the rules of their kinds, as [v3.Validate] does after
// [v3.Default]; it needs no datastore. The objects themselves get no defaults. The problems are
// sorted; each says where its field stands. None is nil.
func Validate(docs []Document) Problems {
	results := make([]Problems, len(docs))
	parallel(len(docs), func(i int) { results[i] = docs[i].Locate(check(docs[i].Object)) })
	return Join(results...)
}

// check applies the rules to a copy.
func check(o v3.Object) error {
	c, ok := v3.New(v3.KindOf(o).Name)
	if !ok {
		return nil
	}
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	if err != nil {
		return err
	}
	v3.Default(c)
	return v3.Validate(c)
}

// Locate gives an error about the document's object, of whoever found it, its positions: that
// of each [v3.FieldError] in it, else that of the document. It is nil for nil.
func (d Document) Locate(err error) Problems {
	if err == nil {
		return nil
	}
	return problems(d.at, position{d.Line, d.Column}, err)
}
