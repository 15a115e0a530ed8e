#include <cstdio>

#include "core/tensor.h"

int main() {
  const sg::Tensor x = sg::Tensor::arange(6, sg::DType::f32).reshape({2, 3});
  const double last = x.transpose(0, 1).select(0, 2).select(0, 1).item();
  std::printf("last element %.1f\n", last);
  return last == 5.0 ? 0 : 1;
}
