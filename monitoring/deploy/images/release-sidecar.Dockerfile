# The sidecar's image of one model version: the sidecar with this version's reference.json inside, and with one
# person's page, which MODEL_EXPORTER_PAGE=/etc/model/risk.html shows at /.
ARG SIDECAR
FROM ${SIDECAR}
COPY reference.json risk.htm[l] /etc/model/
ENV MODEL_EXPORTER_REFERENCE=/etc/model/reference.json
