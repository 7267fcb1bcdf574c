package run

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Tune sets how the Go runtime uses the machine: the growth of the heap in
// percent before a collection, the processors, and a soft limit of memory in MB.
// A negative value is the runtime's greatest: never, all, none.
func Tune(gcPercent, maxProcs, memoryMB int) {
	debug.SetGCPercent(gcPercent)
	limit := int64(math.MaxInt64)
	if memoryMB >= 0 {
		limit = int64(memoryMB) << 20
	}
	debug.SetMemoryLimit(limit)
	if maxProcs < 0 {
		runtime.SetDefaultGOMAXPROCS()
	} else {
		runtime.GOMAXPROCS(maxProcs)
	}
}

// DropStartup gives back the memory that starting took: garbage, and the pages
// of the program's file that nothing has needed since. The whole of weft is one
// program, and a role touches most of it once, in initialisation. What is needed
// again the kernel maps again, from its page cache (madvise(2), MADV_DONTNEED on
// pages that are never written).
func DropStartup() error {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	defer func() { _ = maps.Close() }()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		start, end, ok := constantPages(lines.Text(), exe)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("memory: madvise: %w", errno)
		}
	}
	return nil
}

// constantPages reads a line of /proc/self/maps (proc(5)): the range of a
// mapping of the file exe that can't be written to.
func constantPages(line, exe string) (start, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[5] != exe || fields[1] != "r--p" && fields[1] != "r-xp" {
		return 0, 0, false
	}
	n, err := fmt.Sscanf(fields[0], "%x-%x", &start, &end)
	return start, end, n == 2 && err == nil
}
