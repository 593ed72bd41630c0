# A slim CPU image: `docker run --rm -v "$PWD:/data" clay-publish run release.yaml`
FROM python:3.11-slim AS build
COPY . /source
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /source/constraints.txt torch \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /source/constraints.txt '/source[produce,s3]'

FROM python:3.11-slim
RUN useradd --create-home --uid 1000 clay
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
USER clay
WORKDIR /data
ENTRYPOINT ["clay-publish"]
