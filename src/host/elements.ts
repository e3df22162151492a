// SPDX-License-Identifier: Apache-2.0

import { EEXIST, EINVAL, ENOENT } from '#libc'
import type { Transport } from '#netlink'
import {
  addElement,
  addElements,
  type Change,
  commit,
  deleteElement,
  destroyElements,
  type ElementOf,
  NftablesError,
  readElements,
} from '#nftables'

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

/**
 * Adds elements that say in their comment whose they are. What stands there as another's, whose address it was before,
 * becomes this one's.
 * @throws {NftablesError}; nothing is changed then
 */
export function takeElements(transport: Transport, elements: readonly ElementOf[]): void {
  try {
    commit(transport, addElements(elements, { exclusive: true }))
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === EEXIST)) throw error
    // The kernel leaves an element as it is that is added again, and so its comment.
    commit(
      transport,
      elements.flatMap(({ set, element }) => [
        addElement(set, element),
        deleteElement(set, element),
        addElement(set, element),
      ]),
    )
  }
}

/**
 * Removes elements but those that another's comment stands beside. One without a comment, which somebody put back by
 * hand, is theirs who ask. @throws {NetlinkError}
 */
export function giveBackElements(transport: Transport, elements: readonly ElementOf[]): void {
  const found = elements.length === 0 ? [] : readElements(transport, elements)
  const own = elements.filter(({ element: { comment } }, index) => {
    const there = found[index]
    return there !== undefined && (there.comment ?? comment) === comment
  })
  if (own.length > 0) removeElements(transport, own)
}

/** Carries out a removal of something that may be gone. @throws {NftablesError} */
export function commitUnlessAbsent(transport: Transport, change: Change): void {
  try {
    commit(transport, [change])
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
  }
}
