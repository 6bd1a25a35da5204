// Notes a process's collectives and user-scope events in a ring that outlives the process.
//
// Two public hooks of PyTorch, neither of which changes what an operation computes:
// - a kernel at the BackendSelect key of every operator of namespace c10d, which notes the call and hands it on
//   (ATen/core/dispatch/Dispatcher.h: redispatchBoxed). DDP's reducer and Python both come through there.
// - a RecordFunction callback of user scope only (ATen/record_function.h), which sees what runs an operation
//   (`gloo:all_reduce` on a worker thread), the optimizer, and record_function blocks. Operators do not call it.
// A call's number travels to the thread that runs it with the thread-local debug info, as Gloo propagates it.
//
// A record is committed by storing its sequence number last, with release order: a reader of the file of a process
// that was killed takes only records that are whole. Layout: ../ring.py.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/library.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace {

constexpr uint16_t kCall = 1, kRun = 2, kSplits = 3, kBlocking = 256;
constexpr int kDims = 6, kSplitsARecord = 7;

struct Record {
  std::atomic<uint64_t> sequence;
  int64_t start_ns, end_ns;
  uint64_t call;
  int64_t in_bytes, out_bytes;
  uint32_t tid, name, group;
  int32_t peer;
  uint16_t kind;
  int16_t dtype;
  uint32_t number;
  union {
    struct {
      uint32_t tensors, dims;
      int64_t shape[kDims];
    } tensor;
    int64_t splits[kSplitsARecord];
    char text[56];
  };
};
static_assert(sizeof(Record) == 128, "ring.py reads 128 bytes a record");

struct Name {
  std::atomic<uint32_t> length;
  char text[124];
};
static_assert(sizeof(Name) == 128, "ring.py reads 128 bytes a name");

// One file. A thread that still writes into an old one when the next is started does no harm: it stays mapped.
struct File {
  Record* records;
  uint64_t capacity;
  Name* names;
  uint32_t name_capacity;
  std::atomic<uint64_t> next{0};
  std::unordered_map<std::string, uint32_t> known;
  std::map<std::tuple<uint32_t, uint32_t, int32_t>, uint32_t> counts;
};

struct Ring {
  std::atomic<bool> on{false};
  std::atomic<File*> file{nullptr};
  std::atomic<uint64_t> calls{0};
  std::mutex mutex;  // of the file's names and counts
};
// Never destroyed: threads of PyTorch may still call while the process exits.
Ring& ring = *new Ring;

int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

uint32_t thread_id() {
  static thread_local const uint32_t id = syscall(SYS_gettid);
  return id;
}

// Returns the number of a name, 0 where the table is full: the operation is then kept without its name.
uint32_t intern(File& file, const std::string& text) {
  const auto found = file.known.find(text);
  if (found != file.known.end()) return found->second;
  const uint32_t number = file.known.size() + 1;
  if (number >= file.name_capacity) return 0;
  Name& name = file.names[number];
  const uint32_t length = std::min(text.size(), sizeof(name.text));
  std::memcpy(name.text, text.data(), length);
  name.length.store(length, std::memory_order_release);
  file.known.emplace(text, number);
  return number;
}

template <typename Fill>
void commit(File& file, Fill fill) {
  const uint64_t index = file.next.fetch_add(1, std::memory_order_relaxed);
  Record& record = file.records[index % file.capacity];
  record.sequence.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  std::memset(reinterpret_cast<char*>(&record) + sizeof(record.sequence), 0, sizeof(Record) - sizeof(record.sequence));
  fill(record);
  record.sequence.store(index + 1, std::memory_order_release);
}

struct CallInfo : c10::DebugInfoBase {
  explicit CallInfo(uint64_t number) : number(number) {}
  uint64_t number;
};

// Where in its stack an operator has what is noted; -1: it has none.
struct Plan {
  std::string name;
  int group = -1, input = -1, output = -1, peer = -1, in_splits = -1, out_splits = -1, async_op = -1;
};

Plan plan_of(const c10::FunctionSchema& schema) {
  Plan plan;
  plan.name = schema.name();
  const auto& arguments = schema.arguments();
  for (int i = 0; i < static_cast<int>(arguments.size()); ++i) {
    const std::string& name = arguments[i].name();
    if (name == "process_group") plan.group = i;
    else if (name == "root_rank" || name == "dst" || name == "src") plan.peer = i;
    else if (name == "input_split_sizes") plan.in_splits = i;
    else if (name == "output_split_sizes") plan.out_splits = i;
    else if (name == "async_op") plan.async_op = i;
    else if (name.rfind("input", 0) == 0 || name == "tensors") plan.input = i;
    else if (name.rfind("output", 0) == 0) plan.output = i;
  }
  return plan;
}

struct Sizes {
  int64_t bytes = -1;
  uint32_t tensors = 0, dims = 0;
  int64_t shape[kDims] = {};
  int16_t dtype = -1;
};

void add(Sizes& sizes, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != c10::kStrided) return;
  if (sizes.tensors++ == 0) {
    sizes.bytes = 0;
    sizes.dtype = static_cast<int16_t>(tensor.scalar_type());
    sizes.dims = tensor.dim();
    for (int i = 0; i < std::min<int>(tensor.dim(), kDims); ++i) sizes.shape[i] = tensor.size(i);
  }
  sizes.bytes += tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

void measure(Sizes& sizes, const c10::IValue& value) {
  if (value.isTensor()) {
    add(sizes, value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorList()) add(sizes, tensor);
  } else if (value.isList()) {
    for (const c10::IValue& inner : value.toListRef()) measure(sizes, inner);
  }
}

void note_splits(File& file, const c10::IValue& value, uint64_t call, bool incoming) {
  if (!value.isIntList()) return;
  const std::vector<int64_t> splits = value.toIntVector();
  for (size_t from = 0; from < splits.size(); from += kSplitsARecord) {
    commit(file, [&](Record& record) {
      record.kind = kSplits;
      record.call = call;
      record.name = incoming;
      record.number = from;
      const size_t count = std::min<size_t>(kSplitsARecord, splits.size() - from);
      record.peer = count;
      std::memcpy(record.splits, &splits[from], count * sizeof(int64_t));
    });
  }
}

struct CallKernel : c10::OperatorKernel {
  explicit CallKernel(Plan plan) : plan(std::move(plan)) {}
  const Plan plan;

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    const c10::DispatchKeySet rest(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::BackendSelect);
    if (!ring.on.load(std::memory_order_acquire)) {
      op.redispatchBoxed(keys & rest, stack);
      return;
    }
    File& file = *ring.file.load(std::memory_order_acquire);
    const uint64_t call = ring.calls.fetch_add(1, std::memory_order_relaxed) + 1;
    Sizes in, out;
    std::string group;
    int32_t peer = -1;
    const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
    if (plan.input >= 0) measure(in, arguments[plan.input]);
    if (plan.output >= 0) measure(out, arguments[plan.output]);
    if (plan.peer >= 0) peer = static_cast<int32_t>(arguments[plan.peer].toInt());
    const bool blocking = plan.async_op >= 0 && !arguments[plan.async_op].toBool();
    if (plan.group >= 0) group = arguments[plan.group].toCustomClass<c10d::ProcessGroup>()->getGroupName();
    if (plan.in_splits >= 0) note_splits(file, arguments[plan.in_splits], call, false);
    if (plan.out_splits >= 0) note_splits(file, arguments[plan.out_splits], call, true);
    uint32_t name, group_number, number;
    {
      std::lock_guard<std::mutex> lock(ring.mutex);
      name = intern(file, plan.name);
      group_number = intern(file, group);
      // Collectives of a group share one count; sends and receives have one a peer.
      const bool one_sided = plan.name == "c10d::send" || plan.name.rfind("c10d::recv", 0) == 0;
      number = file.counts[{group_number, one_sided ? name : 0, one_sided ? peer : -1}]++;
    }
    const int64_t start_ns = now_ns();
    auto done = [&] {
      commit(file, [&](Record& record) {
        record.start_ns = start_ns;
        record.end_ns = now_ns();
        record.call = call;
        record.in_bytes = in.bytes;
        record.out_bytes = out.bytes;
        record.tid = thread_id();
        record.name = name;
        record.group = group_number;
        record.peer = peer;
        record.kind = kCall | (blocking ? kBlocking : 0);
        record.dtype = in.tensors ? in.dtype : out.dtype;
        record.number = number;
        const Sizes& shown = in.tensors ? in : out;
        record.tensor.tensors = shown.tensors;
        record.tensor.dims = shown.dims;
        std::memcpy(record.tensor.shape, shown.shape, sizeof(shown.shape));
      });
    };
    struct AtEnd {  // also where the operation throws: the call was made
      decltype(done)& action;
      ~AtEnd() { action(); }
    } at_end{done};
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PRODUCER_INFO, std::make_shared<CallInfo>(call));
    op.redispatchBoxed(keys & rest, stack);
  }
};

struct Run : at::ObserverContext {
  int64_t start_ns;
  uint64_t call;
  uint32_t tid;
};

std::unique_ptr<at::ObserverContext> run_began(const at::RecordFunction&) {
  if (!ring.on.load(std::memory_order_acquire)) return nullptr;
  auto run = std::make_unique<Run>();
  const auto* info = dynamic_cast<const CallInfo*>(
      static_cast<const c10::DebugInfoBase*>(c10::ThreadLocalDebugInfo::get(c10::DebugInfoKind::PRODUCER_INFO)));
  run->call = info ? info->number : 0;
  run->tid = thread_id();
  run->start_ns = now_ns();
  return run;
}

void run_ended(const at::RecordFunction& function, at::ObserverContext* context) {
  if (context == nullptr || !ring.on.load(std::memory_order_acquire)) return;
  const int64_t end_ns = now_ns();
  const Run& run = *static_cast<Run*>(context);
  File& file = *ring.file.load(std::memory_order_acquire);
  uint32_t name;
  {
    std::lock_guard<std::mutex> lock(ring.mutex);
    name = intern(file, function.name());
  }
  commit(file, [&](Record& record) {
    record.start_ns = run.start_ns;
    record.end_ns = end_ns;
    record.call = run.call;
    record.in_bytes = record.out_bytes = -1;
    record.tid = run.tid;
    record.name = name;
    record.peer = -1;
    record.dtype = -1;
    record.kind = kRun;
  });
}

void stop_in_child() { ring.on.store(false, std::memory_order_release); }

void hook_calls() {
  auto& library = *new torch::Library(torch::Library::IMPL, "c10d", c10::DispatchKey::BackendSelect, __FILE__, __LINE__);
  const std::string space = "c10d::";
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.rfind(space, 0) != 0) continue;
    const auto op = c10::Dispatcher::singleton().findSchema(name);
    if (!op) continue;
    Plan plan = plan_of(op->schema());
    if (plan.group < 0) continue;
    const std::string local = name.name.substr(space.size());
    library.impl(
        (name.overload_name.empty() ? local : local + "." + name.overload_name).c_str(),
        torch::CppFunction::makeFromBoxedFunctor(std::make_unique<CallKernel>(std::move(plan))));
  }
}

}  // namespace

// Records into the ring file `path`, laid out as given, from now on; returns an error's text, or nullptr.
extern "C" const char* eidola_recorder_start(
    const char* path, uint64_t bytes, uint64_t names_at, uint32_t name_capacity, uint64_t records_at, uint64_t capacity) {
  const int opened = open(path, O_RDWR | O_CLOEXEC);
  if (opened < 0) return "its ring cannot be opened";
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
  close(opened);
  if (memory == MAP_FAILED) return "its ring cannot be mapped";
  File* file = new File{
      reinterpret_cast<Record*>(static_cast<char*>(memory) + records_at), capacity,
      reinterpret_cast<Name*>(static_cast<char*>(memory) + names_at), name_capacity};
  const bool first = ring.file.exchange(file, std::memory_order_acq_rel) == nullptr;
  try {
    if (first) {
      hook_calls();
      at::addGlobalCallback(at::RecordFunctionCallback(run_began, run_ended).scopes({at::RecordScope::USER_SCOPE}));
      pthread_atfork(nullptr, nullptr, stop_in_child);
    }
  } catch (const std::exception& error) {
    static std::string text;
    text = error.what();
    return text.c_str();
  }
  ring.on.store(true, std::memory_order_release);
  return nullptr;
}

// Starts or stops recording. The memory stays mapped: threads of PyTorch may still be inside of a callback.
extern "C" void eidola_recorder_switch(int on) { ring.on.store(on != 0, std::memory_order_release); }

// Returns how many records the ring was given so far.
extern "C" uint64_t eidola_recorder_count() {
  return ring.file.load(std::memory_order_acquire)->next.load(std::memory_order_relaxed);
}
