// SPDX-License-Identifier: Apache-2.0

import { readFileSync } from 'node:fs'

/** Identifies this boot of the machine (random(4)). `MOORING_BOOT_ID` stands in for it where a reboot is to be tried. */
export const readBootId = (): string =>
  process.env['MOORING_BOOT_ID'] ?? readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
