// Package manifest reads what users wrote: files, directories and standard input of YAML and
// JSON, into objects of api/v3 that know where they stand.
//
//	path ──► files ──► documents ──► objects ──► Document{Object, File, Line, Column}
//	                       └─────────────┴─────► Problem{File, Line, Column, Path, Err}
//
// A file holds documents between lines of ---. A document is one object, a list of objects
// (calicoctl takes that), or an object whose kind is List or the name of a kind and List, with
// its objects in items, as kubectl and calicoctl print several.
//
// The one rule: everything that is wrong is told at once, each with its file, line, column and
// field, and nothing that is wrong hides what stands behind it. So a document that cannot be
// read costs itself only; what is good is returned beside the problems of the rest, and the
// caller decides whether it does anything at all.
//
// Two parsers read YAML here. What a document means is decided by sigs.k8s.io/yaml, as in
// Calico and Kubernetes: "yes" is true, and a label's value 1 is text. Where something stands
// is asked of go.yaml.in/yaml/v4 afterwards, and only of documents with problems, for it alone
// tells columns. JSON is read by encoding/json when it means there what it means as YAML.
//
// It is not for values of the datastore (api/v3's DecodeStored), and knows no rule that needs
// other objects to decide. Lines and columns count from 1, columns in characters.
package manifest
