// SPDX-License-Identifier: Apache-2.0

/**
 * Why an address could not be had: `late` and `aborted` (the caller), `duplicate` (it has one already), `gone` (the port
 * does not exist any more), `withdrawn` (a release came meanwhile), `strange` (the port does not show what was written).
 */
export type AllocationFault = 'late' | 'aborted' | 'duplicate' | 'gone' | 'withdrawn' | 'strange'

/** An address could not be had, for a reason that is none of the cloud's own. */
export class AllocationError extends Error {
  override readonly name = 'AllocationError'
  readonly fault: AllocationFault

  constructor(fault: AllocationFault, message: string) {
    super(message)
    this.fault = fault
  }
}
