// SPDX-License-Identifier: Apache-2.0

import { OpenStackError } from '#openstack'

/**
 * What failed after something was made or taken for an object, as an error whose effect is not known: then the record stays,
 * and the next look finds what it is of. Other errors than those of a service are given back as they are.
 */
export function unfinished(action: string, error: unknown): unknown {
  if (!(error instanceof OpenStackError) || error.effect === 'unknown') return error
  const { service, summary: reason, status, type, kind, remedy } = error
  return new OpenStackError({ service, action, reason, status, type, kind, remedy, effect: 'unknown', cause: error })
}
