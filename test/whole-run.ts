// SPDX-License-Identifier: Apache-2.0

// What `./mooring test --all` alone runs, though it needs no lab: more rounds of the same, and the same code in another setting.

/** True under `--all`. For one file: MOORING_WHOLE_RUN=1 node --test FILE */
export const isWholeRun = process.env['MOORING_WHOLE_RUN'] === '1'

/** For tests that only a whole run has: why they are skipped, else false. */
export const skipUnlessWhole: string | false = isWholeRun ? false : 'takes long: ./mooring test --all'
