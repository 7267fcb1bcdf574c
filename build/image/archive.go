package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// spec is what all architectures of an image have in common.
type spec struct {
	names                list // references; at least one
	entrypoint, cmd, env list
	user                 string
	labels               map[string]string
	created              time.Time
}

// variant is the image of one architecture.
type variant struct {
	arch string // as Go names it, which is as OCI does
	tree tree
}

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"` // bytes
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// blobs are the files of the archive below blobs/sha256/, by hexadecimal digest.
type blobs map[string][]byte

// put stores b and points to it.
func (s blobs) put(mediaType string, b []byte) descriptor {
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	s[digest] = b
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(b)}
}

func (s blobs) putJSON(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	return s.put(mediaType, b), err
}

// path is where the blob is in the archive.
func (d descriptor) path() string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }

// dockerImage is an entry of manifest.json, for which there is no specification
// but Docker's own.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// write makes the archive, under its name only when it is complete.
func write(out string, s spec, variants []variant) error {
	store := blobs{}
	var manifests []descriptor
	var docker []dockerImage
	for i, v := range variants {
		manifest, image, err := store.image(s, v)
		if err != nil {
			return err
		}
		manifests = append(manifests, manifest)
		for _, name := range s.names {
			if i > 0 {
				name += "-" + v.arch
			}
			image.RepoTags = append(image.RepoTags, name)
		}
		docker = append(docker, image)
	}
	index, err := store.putJSON(typeIndex, map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": manifests, "annotations": s.labels,
	})
	if err != nil {
		return err
	}
	var named []descriptor
	for _, name := range s.names {
		d := index
		d.Annotations = map[string]string{
			"io.containerd.image.name":          name, // the whole reference: containerd, Docker
			"org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
		}
		named = append(named, d)
	}
	files := map[string]any{
		"index.json":    map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": named},
		"manifest.json": docker,
		"oci-layout":    map[string]string{"imageLayoutVersion": "1.0.0"},
	}
	return writeArchive(out, files, store)
}

// image stores the blobs of one architecture.
func (s blobs) image(about spec, v variant) (descriptor, dockerImage, error) {
	var packed bytes.Buffer
	plain := sha256.New() // an image names its layers as they are before compression
	zip := gzip.NewWriter(&packed)
	if err := v.tree.pack(io.MultiWriter(zip, plain)); err != nil {
		return descriptor{}, dockerImage{}, err
	}
	if err := zip.Close(); err != nil {
		return descriptor{}, dockerImage{}, err
	}
	layer := s.put(typeLayer, packed.Bytes())
	config, err := s.putJSON(typeConfig, map[string]any{
		"architecture": v.arch, "os": "linux", "created": about.created,
		"config": map[string]any{
			"User": about.user, "Entrypoint": about.entrypoint, "Cmd": about.cmd, "WorkingDir": "/",
			"Env":    append(list{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, about.env...),
			"Labels": about.labels,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(plain.Sum(nil))}},
	})
	if err != nil {
		return descriptor{}, dockerImage{}, err
	}
	manifest, err := s.putJSON(typeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []descriptor{layer}, "annotations": about.labels,
	})
	manifest.Platform = &platform{Architecture: v.arch, OS: "linux"}
	return manifest, dockerImage{Config: config.path(), Layers: []string{layer.path()}}, err
}

// writeArchive writes the files as JSON and the blobs, sorted.
func writeArchive(out string, files map[string]any, store blobs) error {
	f, err := os.Create(out + ".tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	defer func() { _ = f.Close() }()           // as above
	content := map[string][]byte{}
	for name, v := range files {
		if content[name], err = json.Marshal(v); err != nil {
			return err
		}
	}
	for digest, b := range store {
		content["blobs/sha256/"+digest] = b
	}
	tw := tar.NewWriter(f)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content[name]))}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(content[name]); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}
