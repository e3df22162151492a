// SPDX-License-Identifier: Apache-2.0

/** Runs every step in turn, also after one has failed. @throws the first error, when all have run */
export async function everyStep(...steps: readonly (() => unknown)[]): Promise<void> {
  const failures: unknown[] = []
  for (const step of steps)
    await Promise.try(step).catch((error: unknown) => {
      failures.push(error)
    })
  if (failures.length > 0) throw failures[0]
}
