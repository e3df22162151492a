// SPDX-License-Identifier: Apache-2.0

// Where upstream's tuning keeps what interfaces had before, by default: the same for all of the machine. Our CHECK looks there.

import { existsSync, readdirSync, rmdirSync } from 'node:fs'

const directories = ['/run/cni', '/run/cni/tuning']
const missing = directories.filter(each => !existsSync(each))

/** Removes what was not there when the tests began, unless tests that run beside have something in it. */
export function removeTuningData(): void {
  for (const each of missing.toReversed()) if (existsSync(each) && readdirSync(each).length === 0) rmdirSync(each)
}
