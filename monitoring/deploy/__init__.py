"""Images, the stack of containers, and deployments of versions.

build         `make image`
check_images  `make image-test`
digests       `make digests`
docker        the Docker engine, through its command line
local         `make serve`
rollout       `make stack`, `make deploy VERSION=`
secret_files  the stack's secrets
stack         start every service of the stack that this machine can run
"""
