// SPDX-License-Identifier: Apache-2.0

import { type CloudObject, describedAs } from './object.ts'
import { listObjectWants } from './pool-store.ts'
import type { ObjectRoundOptions } from './round.ts'
import { findObject, forgetObject, listLooseObjects, listUndescribed, noteDescribed } from './store.ts'

/**
 * Does in the cloud what nobody waits for: removes what is not needed, cleans what was released, writes down whose is what.
 * Stops for whoever comes to wait meanwhile. The caller holds the pool's lock.
 *
 * @throws {OpenStackError} the first, when all were tried
 */
export async function tidyObjects(options: ObjectRoundOptions): Promise<void> {
  // While the cloud fails often a delete can wait; its outcome would often not be known.
  if ((options.health?.().level ?? 'normal') === 'normal') await removeRetired(options)
  if (isPressed(options)) return
  await recycle(options, listLooseObjects(options.journal, options.pool))
  if (options.longLived) await describeOwned(options)
}

const isPressed = ({ journal, pool, enough }: ObjectRoundOptions) =>
  enough?.() === true || listObjectWants(journal, pool).length > 0

/** Takes from released objects what is left on them, so that the next may have them. */
export async function recycle({ journal, driver, limits, step }: ObjectRoundOptions, objects: readonly CloudObject[]) {
  const dirty = objects
    .flatMap(({ mark }) => findObject(journal, mark) ?? [])
    .filter(each => each.state === 'free' && each.described !== '' && each.missingMs === 0)
  if (dirty.length === 0) return
  step?.('recycle')
  await driver.recycle?.(dirty, limits)
  journal.transaction(() => {
    for (const { mark } of dirty) noteDescribed(journal, mark, '')
  })
}

async function removeRetired(options: ObjectRoundOptions): Promise<void> {
  const { journal, driver, pool, limits } = options
  const retired = listLooseObjects(journal, pool).filter(each => each.state === 'removing')
  await inParallel(options, retired, async object => {
    options.step?.('remove')
    if (object.id !== '') await driver.remove(object, limits)
    options.step?.('forget')
    forgetObject(journal, object.mark)
  })
}

async function describeOwned(options: ObjectRoundOptions): Promise<void> {
  const { journal, driver, pool, limits } = options
  const { describe } = driver
  if (describe === undefined) return
  await inParallel(options, listUndescribed(journal, pool), async object => {
    options.step?.('describe')
    await describe(object, object.owner!, limits)
    noteDescribed(journal, object.mark, describedAs(object.owner))
  })
}

/** Works on all, several at a time, also after one has failed, and until somebody waits. @throws the first error */
async function inParallel(
  options: ObjectRoundOptions,
  objects: readonly CloudObject[],
  work: (object: CloudObject) => Promise<void>,
): Promise<void> {
  const queue = [...objects]
  const failures: unknown[] = []
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined && !isPressed(options); next = queue.shift())
      await work(next).catch((error: unknown) => failures.push(error))
  }
  await Promise.all(Array.from({ length: Math.min(options.driver.parallel, queue.length) }, worker))
  if (failures.length > 0) throw failures[0]
}
