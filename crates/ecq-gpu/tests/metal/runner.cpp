// Runs a kernel: RUNNER SIMD X Y Z up|down [rw]BINDING=FILE...
//
// Every thread of a workgroup is a fibre. It runs until it waits: at a barrier for the workgroup, in a simdgroup operation
// for the lanes beside it. When nobody can go on and somebody waits, threads have diverged, and that is an error: on a GPU
// it would hang or give other results. So is a barrier that some threads have left behind by returning.
//
// `up` runs threads and workgroups in ascending order, `down` in descending order; a kernel that lacks a barrier gives
// different results. Buffers end at a page that cannot be touched. Files of `w` buffers are written back.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "runner.hpp"

namespace emu {
namespace {

constexpr size_t STACK = 256 << 10;
constexpr unsigned SECONDS = 300;

enum class state { ready, in_simdgroup, at_barrier, returned };

struct fibre {
  ucontext_t context;
  invocation at;
  state now;
  const char* operation;  // what it waits in, and where
  unsigned line;
};

struct memory {
  char *guard, *data;
  size_t bytes;
  bool writable;
  std::string file;
};

std::map<unsigned, memory> buffers;
std::vector<fibre> fibres;
std::vector<slot> handed_in, given_out;  // one per thread: of the operation that gathers, of the one that is complete
std::vector<char> workgroup_memory;
ucontext_t scheduler;
fibre* current;
unsigned simd;

size_t threads() { return size_t(workgroup_size[0]) * workgroup_size[1] * workgroup_size[2]; }

void wait(state how, const char* operation, unsigned line) {
  fibre& self = *current;
  self.now = how;
  self.operation = operation;
  self.line = line;
  swapcontext(&self.context, &scheduler);
}

void enter() {
  call(current->at);
  current->now = state::returned;
  setcontext(&scheduler);
}

void start(fibre& f, unsigned index, char* stack, const unsigned group[3], const unsigned groups[3]) {
  invocation& at = f.at;
  std::copy_n(group, 3, at.group);
  std::copy_n(groups, 3, at.groups);
  at.index = index;
  at.local[0] = index % workgroup_size[0];
  at.local[1] = index / workgroup_size[0] % workgroup_size[1];
  at.local[2] = index / workgroup_size[0] / workgroup_size[1];
  at.simdgroup = index / simd;
  at.simdgroups = (threads() + simd - 1) / simd;
  at.lane = index % simd;
  at.simd_width = simd;
  f.now = state::ready;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = stack + index * STACK;
  f.context.uc_stack.ss_size = STACK;
  makecontext(&f.context, enter, 0);
}

bool waits_with(const fibre& a, const fibre& b) {
  return a.now == b.now && a.line == b.line && strcmp(a.operation, b.operation) == 0;
}

// Lets threads [first, last) go on if all of them wait in the same place.
bool release(size_t first, size_t last, state how) {
  for (size_t i = first; i < last; i++) {
    if (fibres[i].now != how || !waits_with(fibres[i], fibres[first])) return false;
  }
  for (size_t i = first; i < last; i++) {
    given_out[i] = handed_in[i];
    fibres[i].now = state::ready;
  }
  return true;
}

std::string describe(const fibre& f) {
  std::string where = f.now == state::returned
                          ? "has returned"
                          : "waits in " + std::string(f.operation) + ", line " + std::to_string(f.line);
  return "thread " + std::to_string(f.at.index) + " " + where;
}

[[noreturn]] void diverged() {
  const auto waits = [](const fibre& f) { return f.now != state::returned; };
  const fibre& one = *std::find_if(fibres.begin(), fibres.end(), waits);
  // of a simdgroup operation the lanes beside it matter, of a barrier all threads
  const size_t first = one.now == state::in_simdgroup ? one.at.index - one.at.lane : 0;
  const size_t last = one.now == state::in_simdgroup ? std::min(first + simd, fibres.size()) : fibres.size();
  const auto differs = [&](const fibre& f) { return !waits_with(f, one); };
  const fibre& other = *std::find_if(fibres.begin() + first, fibres.begin() + last, differs);
  fail("threads have diverged in workgroup %u %u %u: %s, %s", one.at.group[0], one.at.group[1], one.at.group[2],
       describe(one).c_str(), describe(other).c_str());
}

// Runs the threads of a workgroup to their ends.
void run(bool descending) {
  const size_t n = fibres.size();
  for (;;) {
    bool moved = false;
    for (size_t k = 0; k < n; k++) {
      fibre& f = fibres[descending ? n - 1 - k : k];
      if (f.now != state::ready) continue;
      moved = true;
      current = &f;
      swapcontext(&scheduler, &f.context);
    }
    for (size_t g = 0; g < n; g += simd) moved |= release(g, std::min(g + simd, n), state::in_simdgroup);
    moved |= release(0, n, state::at_barrier);
    if (std::all_of(fibres.begin(), fibres.end(), [](const fibre& f) { return f.now == state::returned; })) return;
    if (!moved) diverged();
  }
}

// --- memory ---

char* map_pages(size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) fail("no memory for %zu bytes", bytes);
  return static_cast<char*>(pages);
}

// A buffer whose end, up to its alignment of 16 bytes, is the end of what may be touched.
memory load(const std::string& file, bool writable) {
  std::ifstream stream(file, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(stream)), {});
  if (!stream) fail("cannot read %s", file.c_str());
  const size_t page = sysconf(_SC_PAGESIZE), pages = (bytes.size() + page - 1) / page * page;
  char* start = map_pages(pages + page);
  char* guard = start + pages;
  mprotect(guard, page, PROT_NONE);
  char* data = start + (pages - bytes.size()) / 16 * 16;
  memset(start, 0xff, pages);
  std::copy(bytes.begin(), bytes.end(), data);
  return {guard, data, bytes.size(), writable, file};
}

void store(const memory& m) {
  std::ofstream stream(m.file, std::ios::binary);
  stream.write(m.data, m.bytes);
  stream.close();
  if (!stream) fail("cannot write %s", m.file.c_str());
}

// Accesses outside of memory, and kernels without an end.
void on_signal(int signal, siginfo_t* info, void*) {
  if (signal == SIGALRM) fail("the kernel ran for %u seconds", SECONDS);
  const char* at = static_cast<const char*>(info->si_addr);
  for (const auto& [binding, m] : buffers) {
    if (at >= m.guard && at < m.guard + sysconf(_SC_PAGESIZE)) {
      fail("thread %u touches buffer %u at byte %td of %zu", current->at.index, binding, at - m.data, m.bytes);
    }
  }
  fail("thread %u touches memory that is not the kernel's", current ? current->at.index : 0);
}

void catch_signals() {
  static char stack[64 << 10];  // the fibre's own may be what has run out
  stack_t alternative = {};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof stack;
  sigaltstack(&alternative, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int signal : {SIGSEGV, SIGBUS, SIGALRM}) sigaction(signal, &action, nullptr);
  alarm(SECONDS);
}

}  // namespace

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  _exit(1);
}

void barrier(unsigned line) { wait(state::at_barrier, "threadgroup_barrier", line); }

meeting meet(const char* operation, unsigned line, const void* mine, size_t bytes) {
  const invocation& at = current->at;
  memcpy(handed_in[at.index].bytes, mine, bytes);
  wait(state::in_simdgroup, operation, line);
  const size_t first = at.index - at.lane;
  return {&given_out[first], unsigned(std::min<size_t>(simd, threads() - first)), at.lane};
}

place buffer(unsigned binding) {
  const auto found = buffers.find(binding);
  if (found == buffers.end()) fail("there is no buffer %u", binding);
  return {found->second.data, found->second.bytes, "buffer", binding};
}

unsigned length(unsigned binding) {
  const auto found = buffers.find(binding);
  return found == buffers.end() ? 0 : unsigned(found->second.bytes);
}

place shared(size_t offset, size_t bytes) {
  return {&workgroup_memory[offset], bytes, "workgroup memory from byte", unsigned(offset)};
}

}  // namespace emu

int main(int count, char** words) {
  using namespace emu;
  if (count < 6) fail("SIMD X Y Z up|down [rw]BINDING=FILE...");
  simd = atoi(words[1]);
  unsigned groups[3];
  for (int i = 0; i < 3; i++) groups[i] = strtoul(words[2 + i], nullptr, 10);
  const bool descending = strcmp(words[5], "down") == 0;
  if (simd < 1 || simd > 64) fail("a simdgroup has 1 to 64 lanes, not %s", words[1]);
  for (int i = 6; i < count; i++) {
    char* equals = nullptr;
    const unsigned binding = strtoul(words[i] + 1, &equals, 10);
    buffers.emplace(binding, load(equals + 1, words[i][0] == 'w'));
  }
  const size_t n = threads();
  fibres.resize(n);
  handed_in.resize(n);
  given_out.resize(n);
  workgroup_memory.resize(shared_bytes + 16);
  char* stacks = map_pages(n * STACK);
  catch_signals();
  const uint64_t all = uint64_t(groups[0]) * groups[1] * groups[2];
  for (uint64_t k = 0; k < all; k++) {
    const uint64_t g = descending ? all - 1 - k : k;
    const unsigned group[3] = {unsigned(g % groups[0]), unsigned(g / groups[0] % groups[1]),
                               unsigned(g / groups[0] / groups[1])};
    std::fill(workgroup_memory.begin(), workgroup_memory.end(), char(0xff));  // nothing in it may be counted on
    for (size_t i = 0; i < n; i++) start(fibres[i], i, stacks, group, groups);
    run(descending);
  }
  for (const auto& [binding, m] : buffers) {
    if (m.writable) store(m);
  }
}
