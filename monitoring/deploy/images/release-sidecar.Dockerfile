# The sidecar's image of one model version: the sidecar with this version's reference.json inside.
ARG SIDECAR
FROM ${SIDECAR}
COPY reference.json /etc/model/reference.json
ENV MODEL_EXPORTER_REFERENCE=/etc/model/reference.json
