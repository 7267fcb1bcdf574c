// Package deploy tests what users apply and load: the manifests of deploy, and the image.
//
// The manifests are read as they are in the repository. Some tests look for what they must
// not have (a wildcard in a role, a second image), others hold them against the code (paths,
// kinds). TestK8sManifests gives them to a real API server, and asks it what each service
// account may do. The image is built by `make image`, taken apart, and what is in it started
// in namespaces without a network, with nothing but the image as file system.
//
// That the plain manifests are what the Helm chart gives, with all kinds of settings, is
// tested where they are rendered: build/manifests, a module of its own.
package deploy
