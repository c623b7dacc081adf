"""The vocabulary that demo people and their records are drawn from."""

from __future__ import annotations

FEMALE = ("Ada", "Bella", "Clara", "Dora", "Edith", "Flora", "Greta", "Hanna", "Ines", "Julia", "Karin", "Lena")
MALE = ("Adam", "Bruno", "Carl", "David", "Emil", "Felix", "Georg", "Hugo", "Ivan", "Jonas", "Karl", "Leon")
FAMILIES = (
    "Abbott", "Becker", "Castillo", "Dawson", "Egan", "Fischer", "Gomez", "Hartley", "Ibarra", "Jansen", "Keller",
    "Lindqvist", "Müller", "Novák", "Okafor", "Petrov", "Quinn", "Rossi", "Sørensen", "Tanaka", "Ueda", "Vargas",
    "Weber", "Xu", "Young", "Zimmer",
)  # fmt: skip
STREETS = ("Maple Street", "Harbor Road", "Mill Lane", "Station Avenue", "Orchard Way", "River Drive")
CITIES = (("Springfield", "MA", "01101"), ("Riverton", "CT", "06065"), ("Lakewood", "OH", "44107"))
INSURERS = (("AETNA", "Aetna", "AE"), ("BLUE1", "BlueCross", "BC"), ("CIGN1", "Cigna", "CI"), ("UNIT1", "United", "UH"))
DEPARTMENTS = ("Cardiology", "Emergency", "Internal Medicine", "Neurology", "Pediatrics", "Surgery")

ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
V2 = "http://terminology.hl7.org/CodeSystem/v2-0203"
MRN = "http://hospital.example.org/mrn"
SSN = "http://hl7.org/fhir/sid/us-ssn"
DEMO_TAG = {"system": "urn:wardmesh:demo-data", "code": "hospital"}

DIAGNOSES = (
    ("I10", "Essential (primary) hypertension"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("E78.5", "Hyperlipidemia, unspecified"),
    ("J45.909", "Unspecified asthma, uncomplicated"),
    ("K21.9", "Gastro-esophageal reflux disease without esophagitis"),
    ("J06.9", "Acute upper respiratory infection, unspecified"),
    ("G43.909", "Migraine, unspecified"),
    ("N39.0", "Urinary tract infection, site not specified"),
)
# RxNorm code, name, dose, how often
MEDICINES = (
    ("314076", "Lisinopril 10 MG Oral Tablet", "10 mg", "once daily"),
    ("861007", "Metformin 500 MG Oral Tablet", "500 mg", "twice daily"),
    ("617310", "Atorvastatin 20 MG Oral Tablet", "20 mg", "once daily"),
    ("197361", "Amlodipine 5 MG Oral Tablet", "5 mg", "once daily"),
    ("198051", "Omeprazole 20 MG Oral Capsule", "20 mg", "once daily"),
)
PROCEDURES = ("Physical therapy", "Wound dressing", "Spirometry", "Electrocardiogram", "Dietary counselling")
ALLERGIES = (("Penicillin", "medication"), ("Peanut", "food"), ("Latex", "environment"), ("Pollen", "environment"))
NOTES = ("Follow-up visit", "Annual check", "New complaint", "Review of results", "Medication review")

# LOINC code, name, unit, lowest, highest, decimals
VITALS = (
    ("8867-4", "Heart rate", "/min", 58, 98, 0),
    ("29463-7", "Body weight", "kg", 52, 105, 1),
    ("8302-2", "Body height", "cm", 152, 196, 0),
    ("8310-5", "Body temperature", "Cel", 36, 38, 1),
)
LABS = (
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 5, 9, 1),
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 75, 190, 0),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0, 2, 2),
    ("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", 130, 260, 0),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 11, 17, 1),
)
