// SPDX-License-Identifier: Apache-2.0

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i

/** Whether it is an id, in lower case or not, where a name may stand too. Services write and compare them in lower case. */
export const isUuid = (text: string): boolean => UUID.test(text)
