// Whole numbers, for files of every instruction set and of none: `static`, so that each file has a copy of its own.
#pragma once

namespace mt {

static constexpr long divide_up(long n, long by) { return (n + by - 1) / by; }
static constexpr long round_up(long n, long to) { return divide_up(n, to) * to; }

}  // namespace mt
