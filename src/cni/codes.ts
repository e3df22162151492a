// SPDX-License-Identifier: Apache-2.0

/**
 * Every error code that a plugin of ours may answer.
 *
 * 1-99 belong to the CNI specification (chapter "Error"), 8 is libcni's own, 100-998 are ours, 999 is what the
 * reference library answers for an error without a code: for us, a bug.
 */
export const codes = Object.freeze({
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  invalidNetns: 8,
  tryAgainLater: 11,
  notAvailable: 50,
  notAvailableLimited: 51,
  /** The kernel refused what was asked of it (netlink or nf_tables). */
  kernel: 100,
  /** An OpenStack service refused what was asked of it, and asking again will not help. */
  openstack: 101,
  /** No address can be had: range, subnet or quota exhausted, or the wanted address is taken. */
  addressUnavailable: 102,
  /** CHECK found the attachment differing from its result. */
  checkFailed: 103,
  /** The attachment exists already. */
  duplicateAttachment: 104,
  /** A delegate (a foreign plugin) failed without a code of its own. */
  delegate: 105,
  /** A pod chose for itself what the operator does not allow it. */
  choiceDenied: 106,
  internal: 999,
} as const)

export type Code = (typeof codes)[keyof typeof codes]
