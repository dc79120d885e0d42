# The image of `epp serve` and `epp modelsim`: a virtual environment on a slim Debian, nothing else.
#
# The base is pinned to a patch release of the Python that constraints.txt was resolved for. To
# update it: raise the version here, and run the tests with that Python. Where policy asks for a
# digest: `docker buildx imagetools inspect python:3.11.14-slim-bookworm` prints it, to be appended
# as @sha256:... .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY pkg pkg
COPY api api
COPY cmd cmd
COPY config/crd/bases config/crd/bases
# Without pip in the environment: nothing installs anything later. Compiled now, because the root
# file system is read-only where it runs.
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/epp \
 && pip --python /opt/epp/bin/python install --compile /wheels/*.whl

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/epp /opt/epp
ENV PATH=/opt/epp/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). It owns nothing.
USER 65532:65532
EXPOSE 9002 9003 9090
ENTRYPOINT ["epp"]
CMD ["--help"]
