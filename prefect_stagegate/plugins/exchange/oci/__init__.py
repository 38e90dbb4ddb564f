"""OCI registries: versions as artifacts in ModelPack's form (https://github.com/modelpack/model-spec)."""
