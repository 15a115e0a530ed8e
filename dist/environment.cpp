#include "dist/environment.h"

#include <charconv>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "core/check.h"
#include "core/rng.h"
#include "dist/backend.h"

namespace sg::dist {
namespace {

class Variables {
 public:
  explicit Variables(const GetVariable& get) : get_(get) {}

  bool has(const char* name) const { return get_(name) != nullptr && *get_(name) != '\0'; }
  std::string text(const char* name, const char* otherwise = "") const {
    return has(name) ? get_(name) : otherwise;
  }
  int number(const char* name, int least, int most) const {
    SG_CHECK(has(name), "[launch] {} is not set, though other variables of a launcher are", name);
    const std::string_view value = get_(name);
    int n = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
    SG_CHECK(error == std::errc() && end == value.data() + value.size() && n >= least && n <= most,
             "[launch] {} is '{}'; it must be a whole number from {} to {}", name, value, least,
             most);
    return n;
  }
  int number(const char* name, int least, int most, int otherwise) const {
    return has(name) ? number(name, least, most) : otherwise;
  }

 private:
  const GetVariable& get_;
};

constexpr int kMostRanks = 1 << 16;

// Names of one launcher's variables.
struct Names {
  const char *rank, *size, *local_rank, *local_size;
};

void read_ranks(const Variables& v, const Names& names, ProcessEnvironment& e) {
  e.world_size = v.number(names.size, 1, kMostRanks);
  e.rank = v.number(names.rank, 0, e.world_size - 1);
  e.local_rank = v.number(names.local_rank, 0, e.world_size - 1, e.rank);
  e.local_world_size = v.number(names.local_size, 1, e.world_size, e.world_size);
}

// Where no port is given, jobs of different ids keep apart; below the range that the system hands
// out.
int port_of_job(const std::string& job) {
  return 20'000 + static_cast<int>(name_key(job) % 10'000);
}

}  // namespace

std::optional<ProcessEnvironment> process_environment() {
  return process_environment([](const char* name) { return std::getenv(name); });
}

std::optional<ProcessEnvironment> process_environment(const GetVariable& variable) {
  const Variables v(variable);
  const Backend backend = backend_of(v.text("SHARDGRAD_BACKEND", "auto"), "SHARDGRAD_BACKEND");

  ProcessEnvironment e;
  int shift = 0;
  if (v.has("RANK") || v.has("WORLD_SIZE")) {
    read_ranks(v, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}, e);
    e.job = v.text("TORCHELASTIC_RUN_ID");
    e.launcher = v.has("SHARDGRAD_RUN") ? "shardgrad run"
                 : e.job.empty()        ? "RANK and WORLD_SIZE"
                                        : "torchrun";
    // torchrun's agent holds MASTER_PORT itself.
    shift = e.launcher == "torchrun" ? 1 : 0;
    e.attempt = v.number(
        e.launcher == "torchrun" ? "TORCHELASTIC_RESTART_COUNT" : "SHARDGRAD_RESTART_COUNT", 0,
        std::numeric_limits<int>::max(), 0);
  } else if (v.has("OMPI_COMM_WORLD_SIZE")) {
    e.launcher = "mpirun";
    read_ranks(v,
               {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                "OMPI_COMM_WORLD_LOCAL_SIZE"},
               e);
    e.job = v.text("PMIX_NAMESPACE", v.text("OMPI_MCA_ess_base_jobid").c_str());
  } else if (v.has("SLURM_STEP_ID") && v.has("SLURM_PROCID")) {  // a batch script alone has no step
    e.launcher = "srun";
    const int nodes = v.number("SLURM_STEP_NUM_NODES", 1, kMostRanks, 1);
    read_ranks(
        v,
        {"SLURM_PROCID", v.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS",
         "SLURM_LOCALID", "-"},
        e);
    // SLURM_STEP_TASKS_PER_NODE would be exact ("4(x2),3"); here only "all of them" matters.
    if (nodes > 1) e.local_world_size = (e.world_size + nodes - 1) / nodes;
    if (v.has("SLURM_JOB_ID")) e.job = v.text("SLURM_JOB_ID") + "." + v.text("SLURM_STEP_ID");
    if (nodes > 1) e.address = first_host(v.text("SLURM_STEP_NODELIST"));
  } else {
    return {};
  }
  e.gpus_chosen = v.has("CUDA_VISIBLE_DEVICES");
  if (backend == Backend::threads) {
    SG_CHECK(
        e.world_size == 1,
        "[launch] SHARDGRAD_BACKEND is 'threads', but {} started {} processes; start one, with "
        "--ranks {}",
        e.launcher, e.world_size, e.world_size);
    return {};
  }

  e.address = v.text("MASTER_ADDR", e.address.c_str());
  if (v.has("SHARDGRAD_PORT"))
    e.port = v.number("SHARDGRAD_PORT", 1, 65'535);
  else if (v.has("MASTER_PORT"))
    e.port = v.number("MASTER_PORT", 1, 65'535 - shift) + shift;
  else if (!e.job.empty() || e.world_size == 1)
    e.port = port_of_job(e.job);
  else
    fail(
        "[launch] {} gives the job neither an id nor a port, so that two jobs of this host could "
        "not be told apart; set MASTER_PORT to a port of this job alone",
        e.launcher);
  e.token = v.text("SHARDGRAD_TOKEN");
  e.own_address = v.text("SHARDGRAD_ADDRESS");
  if (e.rank == 0) e.listening_socket = v.number("SHARDGRAD_STORE_FD", 0, 1 << 20, -1);
  e.failure_fd = v.number("SHARDGRAD_FAILURE_FD", 0, 1 << 20, -1);
  SG_CHECK(!e.several_hosts() || !e.token.empty(),
           "[launch] {} of {} processes are on this host, so the job spans several, and "
           "SHARDGRAD_TOKEN is not set; set it to the same secret on all of them",
           e.local_world_size, e.world_size);
  SG_CHECK(
      !e.several_hosts() || v.has("MASTER_ADDR") || e.launcher == "srun",
      "[launch] the job spans several hosts, and MASTER_ADDR is not set; set it to the address "
      "of rank 0's host");
  return e;
}

std::string address_for_peers(const ProcessEnvironment& e, const std::string& way) {
  if (!e.own_address.empty()) return e.own_address;
  const bool loopback = way.starts_with("127.") || way == "::1" || way.starts_with("::ffff:127.");
  // A numeric loopback address of the store leads each host to itself: all processes are on one.
  const bool one_host =
      e.address.starts_with("127.") || e.address == "::1" || e.address == "localhost";
  SG_CHECK(
      !e.several_hosts() || !loopback || one_host,
      "[launch] rank {}: the job spans several hosts, and on this one '{}' means {}, which "
      "others cannot reach (often a line of /etc/hosts); set MASTER_ADDR to the network address "
      "of rank 0's host, or SHARDGRAD_ADDRESS to that of this process's own host",
      e.rank, e.address, way);
  return way;
}

std::string first_host(const std::string& list) {
  const std::size_t bracket = list.find('['), comma = list.find(',');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const std::size_t end = list.find_first_of(",-]", bracket);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

}  // namespace sg::dist
