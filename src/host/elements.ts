// SPDX-License-Identifier: Apache-2.0

import { EINVAL, ENOENT } from '#libc'
import type { Transport } from '#netlink'
import { type Change, commit, deleteElement, destroyElements, type ElementOf, NftablesError } from '#nftables'

/** Transports whose kernel (before 6.3) has no removal that tolerates absence. */
const withoutDestroy = new WeakSet<Transport>()

/**
 * Removes elements; what is not there is no matter.
 * @throws {NftablesError}
 */
export function removeElements(transport: Transport, elements: readonly ElementOf[]): void {
  if (!withoutDestroy.has(transport)) {
    try {
      commit(transport, destroyElements(elements))
      return
    } catch (error) {
      if (!(error instanceof NftablesError)) throw error
      if (error.errno === EINVAL) withoutDestroy.add(transport)
      // ENOENT: a set is missing, which is absence too, but stopped the others.
      else if (error.errno !== ENOENT) throw error
    }
  }
  for (const { set, element } of elements) commitUnlessAbsent(transport, deleteElement(set, element))
}

/** Carries out a removal of something that may be gone. @throws {NftablesError} */
export function commitUnlessAbsent(transport: Transport, change: Change): void {
  try {
    commit(transport, [change])
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
  }
}
