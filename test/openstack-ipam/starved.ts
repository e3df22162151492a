// SPDX-License-Identifier: Apache-2.0

import { readFileSync } from 'node:fs'

/** How long this process's main thread was ready to run while others had the processors (proc(5), schedstat); 0 where the kernel does not say. */
export function starvedMs(): number {
  try {
    return Number(readFileSync('/proc/self/schedstat', 'utf8').split(' ')[1]) / 1e6
  } catch {
    return 0
  }
}
