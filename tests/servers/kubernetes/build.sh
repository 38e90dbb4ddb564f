#!/usr/bin/env bash
# Build the servers of Kubernetes 1.20 from Debian 12's source package, the newest that has them, and unpack etcd and
# kubectl. Nothing is installed. Usage: build.sh FOLDER. Leaves FOLDER/bin. Takes 3 to 9 minutes, 760 MB of memory and
# 3 GB of disk on the way.
set -euo pipefail

mkdir -p "$1/bin"
folder=$(cd "$1" && pwd)
work=$folder/work
rm -rf "$work"
mkdir -p "$work/apt/lists/partial" "$work/debs"
cd "$work"

# Debian 12 beside this machine's release: lists of its own, from the mirror that this machine uses.
mirror=$(find /etc/apt/sources.list* -type f -exec grep -hoE 'https?://[^ ]+/debian/?' {} + | sed -n 1p)
keyring=$(find /usr/share/keyrings -name 'debian-archive-keyring.*' | sed -n 1p)
for suite in bookworm bookworm-updates; do
  echo "deb [signed-by=$keyring] $mirror $suite main"
  echo "deb-src [signed-by=$keyring] $mirror $suite main"
done > apt/sources.list
old=(-q -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/apt/lists")
apt-get "${old[@]}" update
cd debs
apt-get "${old[@]}" source --download-only kubernetes
apt-get "${old[@]}" download golang-1.19-go golang-1.19-src etcd-server golang-github-modern-go-reflect2-dev
apt-get -q download kubectl
for deb in *.deb; do dpkg -x "$deb" "$work/packages"; done
cd ..

tree=$work/gopath/src/k8s.io/kubernetes
mkdir -p "$tree"
tar -xf debs/kubernetes_*.orig.tar.* --strip-components=1 -C "$tree"
# The vendored reflect2 doesn't build by Go 1.19; Debian's does.
rm -rf "$tree/vendor/github.com/modern-go/reflect2"
cp -rL packages/usr/share/gocode/src/github.com/modern-go/reflect2 "$tree/vendor/github.com/modern-go/reflect2"

export GOROOT=$work/packages/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=$work/gocache
export GO111MODULE=off GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-trimpath CGO_ENABLED=0
export PATH=$GOROOT/bin:$PATH
cd "$tree"

# The source package lacks what its own build generates: the API's description, for each package that is marked.
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg plugin cmd staging/src/k8s.io \
  | grep -vE 'code-generator|sample-apiserver|_test.go|/testdata/|wardle' | sed 's#^staging/src/#vendor/#' \
  | xargs -n 1 dirname | LC_ALL=C sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd ,)
"$work/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
  -h hack/boilerplate/boilerplate.generatego.txt -r "$work/violations" -o "$GOPATH/src"

vendor=k8s.io/kubernetes/vendor/k8s.io
version="-X $vendor/component-base/version.gitVersion=v1.20.2 -X $vendor/component-base/version.gitMajor=1"
version="$version -X $vendor/component-base/version.gitMinor=20 -X $vendor/client-go/pkg/version.gitVersion=v1.20.2"
for program in kube-apiserver kube-controller-manager kube-scheduler; do
  go build -p 2 -tags providerless -ldflags "-s -w $version" -o "$folder/bin/$program" "./cmd/$program"
done
cp "$work/packages/usr/bin/etcd" "$work/packages/usr/bin/kubectl" "$folder/bin/"
cd "$folder"
rm -rf "$work"
