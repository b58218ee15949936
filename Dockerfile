# redtest-onnx on the CPU:  docker build -t redtest-onnx .
#                           docker run --rm -v "$PWD:/work" redtest-onnx analyze model.onnx
FROM python:3.12-slim
COPY pyproject.toml README.md LICENSE /src/
COPY redtest_onnx /src/redtest_onnx
RUN pip install --no-cache-dir "/src[cpu,all]" && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["redtest-onnx"]
