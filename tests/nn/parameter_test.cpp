// A parameter's life: declared, made at first use, attached elsewhere; what the ledger sees of it.
#include "nn/parameter.h"

#include <vector>

#include "nn/linear.h"
#include "tests/nn/support.h"

namespace sg::nn {
namespace {

std::int64_t booked() { return current_rank().ledger().live(Kind::parameters); }

// A storage that somebody else owns, as a gathered unit.
class FixedSource : public Source {
 public:
  explicit FixedSource(std::int64_t n) : tensor_(Tensor::arange(n, DType::f32)) {}
  std::shared_ptr<Storage> get() override { return tensor_.storage(); }
  std::uint64_t version() const override { return 0; }
  std::string name() const override { return "unit 0"; }

 private:
  Tensor tensor_;
};

class ParameterLife : public ::testing::Test {
 protected:
  Rank rank_{0, 1, 1, 11};
  RankScope scope_{rank_};
};

TEST_F(ParameterLife, IsADeclarationUntilFirstUse) {
  const Parameter p("w", {1000, 1000000000}, ones);  // 4 TB would not fit
  EXPECT_TRUE(p.declared());
  EXPECT_FALSE(p.materialized());
  EXPECT_FALSE(p.held().defined());
  EXPECT_EQ(p.shape(), (Shape{1000, 1000000000}));
  EXPECT_EQ(p.var().shape(), p.shape());
  EXPECT_TRUE(p.requires_grad());
  EXPECT_EQ(booked(), 0);
  float last[3] = {};
  p.read(0, p.numel() - 3, 3, last, DType::f32);
  EXPECT_EQ(last[2], 1);
  EXPECT_EQ(booked(), 0);
}

TEST_F(ParameterLife, IsMadeOnceAndBooked) {
  const Parameter p("w", {3, 5}, normal());
  std::vector<float> expected(15);
  p.read(11, 0, 15, expected.data(), DType::f32);
  const Tensor value = p.value();
  EXPECT_EQ(booked(), 60);
  EXPECT_EQ(value.to_vector<float>(), expected) << "the current rank's seed";
  EXPECT_EQ(p.value().raw_data(), value.raw_data());
  EXPECT_TRUE(p.materialized());
  EXPECT_FALSE(p.declared());
  EXPECT_EQ(value.storage()->kind(), Kind::parameters);
  value.fill(4);
  std::vector<double> now(2);
  p.read(11, 13, 2, now.data(), DType::f64);
  EXPECT_EQ(now, (std::vector<double>{4, 4})) << "what is here counts, not the declaration";
}

TEST_F(ParameterLife, AttachingFreesWhatWasHeld) {
  const Parameter p("w", {2, 3}, ones);
  p.value();
  EXPECT_EQ(booked(), 24);
  p.attach(std::make_shared<FixedSource>(20), 7);
  EXPECT_EQ(booked(), 0);
  EXPECT_EQ(p.value().to_vector<float>(), (std::vector<float>{7, 8, 9, 10, 11, 12}));
  EXPECT_FALSE(p.materialized());
  EXPECT_FALSE(p.declared());
  float out[6];
  EXPECT_EQ(error_of([&] { p.read(0, 0, 6, out, DType::f32); }),
            "[parameter] w is held by unit 0; ask that for its values");
  EXPECT_EQ(error_of([&] { p.to(DType::f64); }),
            "[parameter] w is held by unit 0; convert it before");
  EXPECT_EQ(error_of([&] { p.init(zeros); }), "[parameter] w is held by unit 0; init() it before");
  p.attach(Tensor::full({2, 3}, 5));
  EXPECT_TRUE(p.materialized());
  EXPECT_EQ(p.value().to_vector<float>(), std::vector<float>(6, 5));
  EXPECT_EQ(error_of([&] {
              p.attach(Tensor::zeros({3, 2}));
            }),
            "[parameter] w is f32 [2, 3], and cannot become f32 [3, 2]");
  EXPECT_EQ(error_of([&] {
              p.attach(Tensor::zeros({3, 2}).transpose(0, 1));
            }),
            "[parameter] w is f32 [2, 3], and cannot become f32 [2, 3], not contiguous");
}

TEST_F(ParameterLife, CopiesAreTheSameParameter) {
  const Parameter p("w", {2}, ones);
  const Parameter q = p;
  q.value().fill(3);
  EXPECT_EQ(p.value().to_vector<float>(), (std::vector<float>{3, 3}));
  EXPECT_EQ(p.id(), q.id());
}

TEST_F(ParameterLife, CastsBeforeAndAfterItIsMade) {
  const Parameter before("w", {100}, normal()), after("w", {100}, normal());
  before.to(DType::f64);
  EXPECT_EQ(before.var().dtype(), DType::f64);
  EXPECT_TRUE(before.declared());
  const std::vector<double> exact = before.value().to_doubles();
  const std::vector<double> rounded = after.value().to_doubles();
  EXPECT_EQ(booked(), 800 + 400);
  after.to(DType::f64);
  EXPECT_EQ(booked(), 800 + 800);
  EXPECT_EQ(after.value().dtype(), DType::f64);
  EXPECT_EQ(after.value().to_doubles(), rounded);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(static_cast<float>(exact[i]), rounded[i]);
  EXPECT_EQ(error_of([&] { after.to(DType::i64); }),
            "[parameter] w must have a floating dtype, got i64");
}

TEST_F(ParameterLife, InitReplacesTheFunctionOrTheValues) {
  const Parameter p("w", {3}, zeros);
  p.init(ones);
  EXPECT_TRUE(p.declared());
  EXPECT_EQ(p.value().to_vector<float>(), std::vector<float>(3, 1));
  const std::uint64_t version = p.value().storage()->version();
  p.init(constant(2));
  EXPECT_EQ(p.value().to_vector<float>(), std::vector<float>(3, 2));
  EXPECT_GT(p.value().storage()->version(), version);
  EXPECT_EQ(error_of([&] { p.init(kaiming_uniform()); }).substr(0, 6), "[init]");
  EXPECT_EQ(p.value().to_vector<float>(), std::vector<float>(3, 2));
}

// Whatever form the manager keeps the value in: attached as a tensor (ddp, zero1, zero2) or behind
// a source (zero3).
TEST_F(ParameterLife, AManagedOneIsNotChangedBehindItsManagersBack) {
  for (const bool sharded : {false, true}) {
    SCOPED_TRACE(sharded ? "source" : "tensor");
    const Parameter p("fc.weight", {2, 3}, ones), other("other", {2, 3}, zeros);
    if (sharded)
      p.attach(std::make_shared<FixedSource>(20), 7);
    else
      p.attach(Tensor::full({2, 3}, 5));
    EXPECT_FALSE(p.managed());
    p.manage("an engine");
    EXPECT_TRUE(p.managed());
    const std::vector<float> before = p.value().to_vector<float>();
    const auto refused = [](const std::string& op) {
      return "[" + op + "] fc.weight is managed by an engine; call " + op +
             "() before dist::initialize, or after the engine has ended";
    };
    EXPECT_EQ(error_of([&] { p.requires_grad_(false); }), refused("requires_grad_"));
    EXPECT_EQ(error_of([&] { p.to(DType::f64); }), refused("to"));
    EXPECT_EQ(error_of([&] { p.init(zeros); }), refused("init"));
    EXPECT_EQ(error_of([&] { p.tie(other); }), refused("tie"));
    EXPECT_TRUE(p.requires_grad());
    EXPECT_EQ(p.dtype(), DType::f32);
    EXPECT_NE(p.id(), other.id());
    EXPECT_EQ(p.value().to_vector<float>(), before);
    // What changes nothing is no error.
    p.requires_grad_(true);
    p.to(DType::f32);
    p.manage("");
    p.requires_grad_(false);
    EXPECT_FALSE(p.requires_grad());
    if (!sharded) {
      p.init(zeros);
      p.to(DType::f64);
      EXPECT_EQ(p.value().to_doubles(), std::vector<double>(6));
    }
  }
}

TEST_F(ParameterLife, AModuleOfManagedParametersNamesTheFirst) {
  Linear fc(2, 3);
  for (const NamedParameter& p : fc.named_parameters()) p.parameter.manage("an engine");
  EXPECT_EQ(error_of([&] { fc.to(DType::f64); }).substr(0, 35),
            "[to] weight is managed by an engine");
  EXPECT_EQ(error_of([&] { fc.requires_grad_(false); }).substr(0, 47),
            "[requires_grad_] weight is managed by an engine");
  EXPECT_TRUE(fc.bias.requires_grad());
}

TEST_F(ParameterLife, OnMetaItHasAShapeButNoBytes) {
  const Parameter p("w", {1000, 1000000000}, ones);
  {
    const Scoped device(rank_.device, kMeta);
    EXPECT_TRUE(p.value().is_meta());
    EXPECT_EQ(p.value().storage(), p.value().storage());
  }
  EXPECT_TRUE(p.declared()) << "a dry run decides nothing";
}

TEST_F(ParameterLife, TieRedirectsEveryHandle) {
  const Parameter a("a", {2, 3}, ones), b("b", {2, 3}, zeros), c("c", {3, 2}, zeros);
  const Parameter copy = b;
  b.tie(a);
  EXPECT_EQ(copy.id(), a.id());
  EXPECT_EQ(copy.value().raw_data(), a.value().raw_data());
  EXPECT_EQ(error_of([&] { c.tie(a); }),
            "[tie] c is f32 [3, 2], a is f32 [2, 3]; tied parameters are one");
}

TEST_F(ParameterLife, Errors) {
  EXPECT_EQ(error_of([] {
              Parameter("w", {2, -3}, ones);
            }),
            "[parameter] w has a negative size in shape [2, -3]");
  EXPECT_EQ(error_of([] { Parameter("w", {2}, ones, DType::i32); }),
            "[parameter] w must have a floating dtype, got i32");
  EXPECT_EQ(error_of([] { Parameter("w", {2}, nullptr); }),
            "[parameter] w has no function that makes its values");
  EXPECT_EQ(error_of([] { Parameter().value(); }), "[var] the value is undefined");
  EXPECT_EQ(error_of([] { Parameter().name(); }), "[parameter] the parameter is undefined");
  float out[4];
  EXPECT_EQ(error_of([&] { Parameter("w", {4}, ones).read(0, 2, 3, out, DType::f32); }),
            "[parameter] w of shape [4] has no elements [2, 5)");
}

}  // namespace
}  // namespace sg::nn
