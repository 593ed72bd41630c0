# A slim image for CPUs: `docker run --rm -v "$PWD:/data" clay-publish run release.yaml`
# PyPI's torch for Linux brings GPU libraries: pass PyTorch's index of CPU wheels as --build-arg TORCH_INDEX=….
FROM python:3.11-slim AS build
ARG TORCH_INDEX=
COPY . /source
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
       --constraint /source/constraints.txt torch \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /source/constraints.txt '/source[produce,s3]'

FROM python:3.11-slim
RUN useradd --create-home --uid 1000 clay
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
USER clay
WORKDIR /data
ENTRYPOINT ["clay-publish"]
