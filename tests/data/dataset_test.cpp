#include "data/dataset.h"

#include "support.h"

namespace sg::data {
namespace {

TEST(Dataset, GivesSizesAndImages) {
  const auto set = numbered_set(300, 4, 5);
  EXPECT_EQ(set->size(), 300);
  EXPECT_EQ(set->image_size(), 60);
  EXPECT_EQ(set->image(258).size(), 60u);
  EXPECT_EQ(set->image(258)[0], 2);
  EXPECT_EQ(set->image(258)[1], 1);
  EXPECT_NO_THROW(set->validate());
}

TEST(Dataset, ValidateNamesWhatDoesNotFit) {
  auto set = numbered_set(3, 2, 2);
  set->images.pop_back();
  EXPECT_EQ(error_of([&] { set->validate(); }),
            "[dataset] numbered: 3 labels and images of 12 bytes need 36 bytes of images, got 35");
  set = numbered_set(3);
  set->labels[2] = 10;
  EXPECT_EQ(error_of([&] { set->validate(); }),
            "[dataset] numbered: label 10 of sample 2 has no class; there are 10 classes");
  set = numbered_set(3);
  set->width = 0;
  expect_contains(error_of([&] { set->validate(); }), "each must be positive");
}

TEST(Dataset, OpenKnowsTheSyntheticSetAndFolders) {
  EXPECT_EQ(open("synthetic").train->name, "synthetic train");
  expect_contains(error_of([] { open(""); }), "use 'synthetic' or a folder");
  expect_contains(error_of([] { open("/no/such/place"); }), "[cifar10] no folder /no/such/place");
}

}  // namespace
}  // namespace sg::data
