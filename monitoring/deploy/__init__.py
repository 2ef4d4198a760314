"""Images, the stack of containers, and moving from one version to another.

build         `make image`
check_images  `make image-test`
digests       `make digests`
docker        the Docker engine, through its command line
local         `make serve`
rollout       `make stack`, `make deploy VERSION=`
secret_files  the stack's secrets
stack         bringing the whole stack up: every service that this machine can have, each by itself
"""
