// SPDX-License-Identifier: Apache-2.0

/**
 * Why an address could not be had: `late` and `aborted` (the caller), `duplicate` (it has one already), `gone` (the port
 * does not exist any more), `withdrawn` (a release came meanwhile), `strange` (the port does not show what was written),
 * `full` (a limit of the node's own is reached), `broken` (what the cloud gave cannot be used), `taken` (the very address that
 * was asked for is somebody else's, or cannot be had at all).
 */
export type AllocationFault =
  | 'late'
  | 'aborted'
  | 'duplicate'
  | 'gone'
  | 'withdrawn'
  | 'strange'
  | 'full'
  | 'broken'
  | 'taken'

/** An address could not be had, for a reason that is none of the cloud's own. */
export class AllocationError extends Error {
  override readonly name = 'AllocationError'
  readonly fault: AllocationFault
  /** What helps, where it is known. */
  readonly remedy: string | undefined
  /** For `full`: the subnets that have no address left, where it is that. */
  readonly subnetIds: readonly string[]

  constructor(
    fault: AllocationFault,
    message: string,
    {
      remedy,
      subnetIds = [],
      ...options
    }: ErrorOptions & { remedy?: string | undefined; subnetIds?: readonly string[] } = {},
  ) {
    super(message, options)
    this.fault = fault
    this.remedy = remedy
    this.subnetIds = subnetIds
  }
}
