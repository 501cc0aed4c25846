# The images of the three services for both platforms, from one command:
#
#   docker buildx bake -f deploy/docker/bake.hcl --push
#
# TAG is the release, PREFIX where images are pushed to.

variable "TAG" { default = "0.1.0" }
variable "PREFIX" { default = "uptake" }

group "default" {
  targets = ["ingest-gateway", "enricher", "rollup-writer"]
}

target "image" {
  matrix     = { service = ["ingest-gateway", "enricher", "rollup-writer"] }
  name       = service
  context    = "."
  dockerfile = "deploy/docker/Dockerfile"
  target     = service
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${PREFIX}/${service}:${TAG}"]
}
