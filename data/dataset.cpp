#include "data/dataset.h"

#include "core/check.h"
#include "data/cifar10.h"
#include "data/synthetic.h"

namespace sg::data {

void Dataset::validate() const {
  SG_CHECK(channels > 0 && height > 0 && width > 0,
           "[dataset] {}: images of {} x {} x {} (channels, height, width); each must be positive",
           name, channels, height, width);
  SG_CHECK(images.size() == labels.size() * static_cast<std::size_t>(image_size()),
           "[dataset] {}: {} labels and images of {} bytes need {} bytes of images, got {}", name,
           labels.size(), image_size(), labels.size() * static_cast<std::size_t>(image_size()),
           images.size());
  for (std::size_t i = 0; i < labels.size(); ++i)
    SG_CHECK(labels[i] < classes.size(),
             "[dataset] {}: label {} of sample {} has no class; there are {} classes", name,
             labels[i], i, classes.size());
}

Splits open(const std::string& name) {
  SG_CHECK(!name.empty(),
           "[data] no data set named; use 'synthetic' or a folder with CIFAR-10's binary files");
  return name == "synthetic" ? synthetic() : cifar10(name);
}

}  // namespace sg::data
