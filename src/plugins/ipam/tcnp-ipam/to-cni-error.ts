// SPDX-License-Identifier: Apache-2.0

import { AllocationError } from '#allocator'
import { CniError, type Code, codes } from '#cni'
import { CloudConfigError, type ErrorKind, OpenStackError } from '#openstack'

/** Of what is full nothing is remembered that would keep the next one from it. */
export const NEXT_ADD = 'the next ADD asks again'

const codeOfKind: Readonly<Record<ErrorKind, Code>> = {
  transient: codes.tryAgainLater,
  conflict: codes.tryAgainLater,
  exhausted: codes.addressUnavailable,
  quota: codes.addressUnavailable,
  auth: codes.openstack,
  missing: codes.openstack,
  permanent: codes.openstack,
}

/** The error that leaves a plugin for one of an OpenStack service. The remedy goes into the details. */
export function fromOpenStack(error: OpenStackError): CniError {
  const code = error.type === 'IpAddressAlreadyAllocated' ? codes.addressUnavailable : codeOfKind[error.kind]
  const isFull = error.kind === 'exhausted' || error.kind === 'quota'
  return new CniError(code, error.summary, { details: detailsOf(error, isFull), cause: error })
}

type Told = { readonly remedy: string | undefined; readonly retryAfterMs?: number | undefined }

/** The remedy, and when the next try is where somebody knows it and the message does not say it. */
function detailsOf({ remedy, retryAfterMs, ...error }: Told & { readonly summary: string }, isFull: boolean) {
  const texts = remedy === undefined ? [] : [remedy]
  if (!error.summary.includes('next try ')) {
    if (retryAfterMs !== undefined) texts.push(`next try in ${Math.max(1, Math.ceil(retryAfterMs / 1000))} s`)
    else if (isFull) texts.push(NEXT_ADD)
  }
  return texts.join('; ') || undefined
}

/** The error that leaves a plugin for a cloud's description that cannot be used. */
const fromCloudConfig = (error: CloudConfigError): CniError =>
  new CniError(codes.invalidConfig, error.summary, { details: error.remedy, cause: error })

/** The error that leaves a plugin where an address could not be had for a reason that is not the cloud's. */
function fromAllocation(error: AllocationError): CniError {
  if (error.fault === 'duplicate')
    return new CniError(codes.duplicateAttachment, error.message, {
      details: 'call DEL for the attachment first',
      cause: error,
    })
  const isPermanent = error.fault === 'full' || error.fault === 'taken'
  const code = isPermanent ? codes.addressUnavailable : codes.tryAgainLater
  const { message: summary, remedy } = error
  return new CniError(code, summary, { details: detailsOf({ summary, remedy }, error.fault === 'full'), cause: error })
}

/** What of the kinds above an error is, undefined for any other. */
export function fromCloud(error: unknown): CniError | undefined {
  if (error instanceof OpenStackError) return fromOpenStack(error)
  if (error instanceof CloudConfigError) return fromCloudConfig(error)
  if (error instanceof AllocationError) return fromAllocation(error)
  return undefined
}
